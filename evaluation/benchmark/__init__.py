"""Question sets: WSI-Bench in both layouts, SlideBench, WSI-VQA, MultiPathQA, and plain JSONL. Reads files, asks
nobody."""
