"""WSI-Precision and WSI-Relevance: claims are taken out of one text, and each is judged by the other text."""
