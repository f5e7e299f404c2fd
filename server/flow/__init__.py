"""What is done with a slide, one story a file. Each holds what it uses and knows nothing of HTTP.

prepare_slide     upload → look inside → keep → queue      (then the worker: server.encoding.encode_job)
attach_features   upload → look inside → keep beside the slide
encode_again      options → changed record → job
queue_encode      changed record → job
answer_question   embedding (memory, Redis, else store) → vLLM → events
follow_slide      progress → ready or failed
delete_slide      all of it, gone
"""
