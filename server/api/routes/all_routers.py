"""Every router of the API, in the order in which addresses are looked up."""

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
        slides,
        metadata,
        uploads,
        dicomweb,
        pictures,
        levels,
        places,
        regions,
        questions,
        cases,
        reports,
        evidence,
        conversations,
        feedback,
        chat,
        usage,
        webhooks,
        health,
        document,
        page,
    )
)
