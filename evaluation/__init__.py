"""Examines a model that answers about synthetic slides. Pure: it knows neither HTTP nor the model."""
