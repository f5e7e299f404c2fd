"""/ and /page: the clinicians' page. It needs no key: it holds nothing of anybody until somebody has signed in."""

from fastapi import APIRouter, Request, Response

from server.api.dependencies import PageDep
from server.api.downloads import has_version
from server.errors import NotFound
from web.files import PageFile

router = APIRouter(include_in_schema=False)
# The hash is that of the one style that OpenSeadragon writes into the page by itself.
_STYLE_OF_VIEWER = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_STYLE_OF_VIEWER}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        # Of empty_markup.js, which allows none but the empty text.
        "trusted-types default",
    )
)
_HEADERS = {
    # Asked for again each time, which costs a 304: after an upgrade no module meets one of another release.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
}


@router.api_route("/", methods=["GET", "HEAD"])
async def show_page(request: Request, page: PageDep) -> Response:
    """The page itself."""
    return _response(request, page["index.html"])


@router.api_route("/page/{name:path}", methods=["GET", "HEAD"])
async def get_page_file(name: str, request: Request, page: PageDep) -> Response:
    """A module, a style, or what else the page loads."""
    file = page.get(name)
    if file is None:
        raise NotFound("The page has no such file; load it again.")
    return _response(request, file)


def _response(request: Request, file: PageFile) -> Response:
    wants_gzip = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{file.digest}{"-gz" if wants_gzip else ""}"'
    headers = {**_HEADERS, "ETag": etag}
    if has_version(request, etag):
        return Response(status_code=304, headers=headers)
    if wants_gzip:
        headers["Content-Encoding"] = "gzip"
    content = file.gzipped if wants_gzip else file.content
    return Response(content, media_type=file.media_type, headers=headers)
