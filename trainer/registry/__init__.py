"""The registry of models: versions, aliases, registration of a trained model, and the gate before promotion."""
