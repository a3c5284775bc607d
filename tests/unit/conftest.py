"""Settings of Hypothesis: no example has a deadline, because a busy machine exceeds any."""

from hypothesis import settings

settings.register_profile("raymill", deadline=None)
settings.load_profile("raymill")
