"""How a model that answers about synthetic slides is examined: pure, it knows neither HTTP nor the model."""
