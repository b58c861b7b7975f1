"""What every peer serves, as a WSGI application."""
import hashlib
import os
import time
from urllib.parse import parse_qs


def app(environ, start_response):
    ms = int(parse_qs(environ["QUERY_STRING"]).get("ms", ["0"])[0])
    path = environ["PATH_INFO"]
    head = [
        ("X-Worker", str(os.getpid())),
        ("X-Request-Id", environ.get("HTTP_X_REQUEST_ID", "")),
    ]
    if path == "/stream":
        start_response("200 OK", head)
        return stream(ms / 1000)
    if path == "/upload":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        text = "%d %s\n" % (len(body), hashlib.sha256(body).hexdigest())
    else:
        time.sleep(ms / 1000)
        text = "hello\n"
    start_response("200 OK", head + [("Content-Length", str(len(text)))])
    return [text.encode()]


def stream(seconds):
    for _ in range(10):
        yield b"part\n"
        time.sleep(seconds / 10)
