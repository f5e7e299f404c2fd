"""Errors of training, each with a sentence for the person at the terminal."""


class TrainingError(Exception):
    """Any refusal or failure of a training command."""


class SettingsChanged(TrainingError):
    """The folder holds the work of a run with other settings."""


class CheckpointMismatch(TrainingError):
    """A checkpoint or finished weights do not fit the model: names or shapes differ."""


class TrainingDiverged(TrainingError):
    """The loss is no longer a finite number."""
