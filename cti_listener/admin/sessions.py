"""Logging in: the token, typed into the page, for a cookie, since `EventSource` sends no headers.

The cookie holds chance, never the token; no script can read it, and no other site has it sent.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from cti_listener.admin.access import SESSION_AGE, Access
from cti_listener.admin.replies import refused, told
from cti_listener.log import log

COOKIE: Final = "cti_session"

BODY_TIMEOUT: Final = 5.0
"""How long the form may take to come, in seconds."""


class Sessions:
    """Answers `/session`.

    Args:
        access: Knows the token.
    """

    def __init__(self, access: Access) -> None:
        """Ask this access."""
        self._access = access

    async def standing(self, request: web.BaseRequest) -> web.Response:
        """Tell the page whether it may ask, and whether there is a session to leave.

        To whoever asks, since a browser complains of each 401 as of an error.
        """
        cookie = request.cookies.get(COOKIE)
        inside = self._access.admits(request.headers.get("Authorization"), cookie)
        session = not self._access.is_open and self._access.admits(None, cookie)
        return told(200, {"inside": inside, "session": session})

    async def log_in(self, request: web.BaseRequest) -> web.Response:
        """Trade the token for a cookie."""
        token = await _form_token(request)
        if not self._access.is_token(token):
            log.warning("admin_token_refused", peer=request.remote)
            return refused(403, "this is not the token")
        response = web.Response(status=204)
        response.set_cookie(
            COOKIE,
            self._access.begin(),
            max_age=int(SESSION_AGE),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def log_out(self, request: web.BaseRequest) -> web.Response:
        """End the session, and have the cookie forgotten."""
        self._access.end(request.cookies.get(COOKIE, ""))
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response


async def _form_token(request: web.BaseRequest) -> str:
    """Read the token out of a form.

    Raises:
        HTTPException: Another site sent it, or it is no form, too long or too slow.
    """
    origin = request.headers.get("Origin")
    if origin not in (None, f"http://{request.host}", f"https://{request.host}"):
        raise web.HTTPForbidden(text="sent by another site")
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="send a form with the field token")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            form = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the form did not come in time") from None
    except ValueError:
        raise web.HTTPBadRequest(text="the form cannot be read") from None
    return str(form.get("token", ""))
