"""The child that parses one slide: it limits itself first and loads the parsers afterwards."""

from encoders.tiling.isolation.child_pipes import ChildPipes
from encoders.tiling.isolation.limit_process import limit_process
from encoders.tiling.isolation.reader_protocol import Open


def main() -> None:
    """Answers the parent on standard input and output until either end closes."""
    pipes = ChildPipes.take_standard_streams()
    request = Open.model_validate_json(pipes.next_request())
    degraded = limit_process(request.limits, request.parent_pid)
    # Not at the top of the file: foreign code is to be initialised under the limits too.
    from encoders.tiling.isolation.answer_requests import serve

    serve(pipes, request, degraded)


if __name__ == "__main__":
    main()
