"""HTTP in, events out: the API, the queue, and the worker that joins them to the encoders.

The stories are in `server.flow`; the parts are joined in `server.app`. The API imports no torch.
"""
