"""Answers that somebody else made, taken into a run as if they had been asked for: as is, and under no other
condition."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluation.asking.conditions import AS_IS, CONDITIONS, Ask
from evaluation.asking.reply_log import ReplyLog
from evaluation.benchmark.predictions import Predictions
from evaluation.run_folder import AskedTarget, RunFolder


def log_predictions(
    folder: RunFolder, name: str, predictions: Predictions, asks: Sequence[Ask], note: str
) -> dict[str, Any]:
    """Writes the log; returns the counts that stand in the record. A question that the file does not answer has the
    reason "no_prediction".

    An id is a key of the set, or what stands behind the file's name in it where only one question has that.

    Raises:
        RunMismatch: other answers have that name already.
    """
    ids = Counter(_id(ask.item.key) for ask in asks)
    keys = {ask.item.key for ask in asks}
    by_item = {
        ask.item.key: predictions.answers.get(
            ask.item.key, predictions.answers.get(_id(ask.item.key)) if ids[_id(ask.item.key)] == 1 else None
        )
        for ask in asks
    }
    of_no_question = [key for key in predictions.answers if key not in keys and ids[key] != 1]
    counts = {
        "rows": predictions.rows,
        "not_json": len(predictions.not_json),
        "duplicate_ids": len(predictions.duplicates),
        "without_answer": len(predictions.without_answer),
        "of_no_question": len(of_no_question),
        "questions_without_prediction": sum(answer is None for answer in by_item.values()),
    }
    record = {
        "kind": "predictions file",
        "model": {"id": name},
        "counts": counts,
        "duplicates": list(predictions.duplicates),
        "note": note,
    }
    unavailable = tuple(condition for condition in CONDITIONS if condition != AS_IS)
    folder.keep_target(AskedTarget(name, record, (AS_IS,), unavailable, 0, {}))
    with ReplyLog.open(folder.answers_path(name)) as log:
        for ask in asks:
            answer = by_item[ask.item.key]
            reason = None if answer is not None else "no_prediction"
            line = {"key": ask.key, "condition": AS_IS, "item": ask.item.key, "text": answer, "reason": reason}
            if log.latest.get(ask.key) != line:
                log.append(line)
    return counts


def _id(key: str) -> str:
    return key.rsplit("/", 1)[-1]
