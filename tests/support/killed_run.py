"""Asks and judges in a process that is there to be killed: `python killed_run.py SET RUN MODEL_URL JUDGE_URL`."""

import asyncio
import sys
from functools import partial
from pathlib import Path

from evaluation.asking.conditions import AS_IS, PARAPHRASED, Condition, plan_asks
from evaluation.asking.reply_log import ReplyLog
from evaluation.asking.run import ask_all
from evaluation.asking.targets import ChatEndpoint, PictureTarget, reply_line
from evaluation.benchmark.read_set import read_set
from evaluation.judging.judge import Answered, Judge
from evaluation.judging.prompts import OURS
from evaluation.run_folder import AskedTarget, RunFolder

CONDITIONS: tuple[Condition, ...] = (AS_IS, PARAPHRASED)


def run(questions_path: Path, folder: RunFolder, model_url: str, judge_url: str) -> None:
    """As `eyepiece evaluate ask` and `judge` do it, without the command line, which takes seconds to import."""
    questions = read_set(questions_path)
    folder.keep_set(questions)
    target = PictureTarget(ChatEndpoint(model_url, "m"), "none", lambda shown: ())
    folder.keep_target(AskedTarget("model", target.record, CONDITIONS, (), 1, {}))
    asks = plan_asks(questions, CONDITIONS, 1).asks
    with ReplyLog.open(folder.answers_path("model")) as log:
        asyncio.run(ask_all(partial(reply_line, target), asks, log, at_once=3))
        answers = [
            Answered(ask.item.question, ask.wanted, log.latest[ask.key]["text"])
            for ask in asks
            if ask.condition == AS_IS and not ask.item.is_closed
        ]
    judge = Judge(ChatEndpoint(judge_url, "rules"), OURS, repeats=1)
    folder.keep_judge(judge.record, [AS_IS])
    with ReplyLog.open(folder.judge_log_path) as log:
        asyncio.run(judge.ask_all(answers, log, at_once=3))


if __name__ == "__main__":
    run(Path(sys.argv[1]), RunFolder(Path(sys.argv[2])), *sys.argv[3:])
