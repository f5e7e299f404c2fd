"""Every router of the API, in the order in which addresses are looked up: what a first token waits for comes first."""

from server.api.routes import (
    cases,
    chat,
    conversations,
    dicomweb,
    document,
    evidence,
    feedback,
    health,
    levels,
    metadata,
    page,
    pictures,
    places,
    questions,
    regions,
    reports,
    slides,
    uploads,
    usage,
    webhooks,
)

ROUTERS = tuple(
    module.router
    for module in (
        questions,
        chat,
        pictures,
        slides,
        metadata,
        uploads,
        dicomweb,
        levels,
        places,
        regions,
        cases,
        reports,
        evidence,
        conversations,
        feedback,
        usage,
        webhooks,
        health,
        document,
        page,
    )
)
