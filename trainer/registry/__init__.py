"""The registry of models: versions, aliases, registration of a finished training, and the gate to the champion."""
