"""The report: one HTML file without scripts, fonts or pictures from elsewhere. Everything from a model is escaped."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from evaluation.asking.conditions import AS_IS
from evaluation.errors import MissingLanguageData
from evaluation.report.ablation_tables import ablation_tables
from evaluation.report.examples import examples
from evaluation.report.pick import METRIC_TITLES, Numbers, shown_metrics
from evaluation.report.plots import COLOURS, legend, plot
from evaluation.report.table import Table, main_table
from evaluation.run_folder import as_json
from evaluation.scoring.score_run import Scored


def report_page(scored: Scored, record: Mapping[str, Any]) -> str:
    """The page.

    Raises:
        MissingLanguageData: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingLanguageData("The report needs Jinja: install Eyepiece with the extra `eval`.") from error
    numbers = Numbers(scored.document)
    shown = shown_metrics(numbers)
    tables: list[Table] = [main_table(numbers, metric) for metric in shown]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    template = environment.from_string(files("evaluation.report").joinpath("report.html.jinja").read_text("utf-8"))
    open_metric = next((metric for metric in shown[1:]), shown[0] if shown else "")
    return template.render(
        set=scored.document["set"],
        targets=scored.document["targets"],
        colours=_colours(numbers),
        ablations=ablation_tables(scored.document, numbers),
        tables=tables,
        legend=Markup(legend()),  # noqa: S704 - made of constants
        plots=[  # all texts in them are escaped where they are drawn
            (METRIC_TITLES[metric], by, Markup(svg))  # noqa: S704
            for metric in shown
            for by in ("task", "project")
            if (svg := plot(numbers, by, metric))
        ],
        refused=[line for line in scored.document["numbers"] if "refused" in line],
        judge=scored.document["judge"],
        examples=examples(scored.rows, open_metric),
        as_is=AS_IS,
        numbers=[line for line in scored.document["numbers"] if "refused" not in line],
        record=as_json(dict(record)),
    )


def _colours(numbers: Numbers) -> dict[str, str]:
    """Of the plots; what is not in them has none."""
    plotted = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(numbers.targets)}
    return {**dict.fromkeys(numbers.ablated, "transparent"), **plotted}
