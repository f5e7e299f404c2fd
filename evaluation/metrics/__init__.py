"""Metrics of single answers. Each gives a value or says why there is none; nothing here averages or asks."""
