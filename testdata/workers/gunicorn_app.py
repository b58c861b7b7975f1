"""An app as gunicorn serves one (WSGI). It knows nothing of who has bound its socket."""
import hashlib
import os
import time
from urllib.parse import parse_qs

WHO = "gunicorn %s pid=%d" % (os.environ["HANDOVER_WORKER"], os.getpid())


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    time.sleep(int(parse_qs(environ["QUERY_STRING"]).get("ms", ["0"])[0]) / 1000)
    text = WHO if environ["REQUEST_METHOD"] == "GET" else "%d %s" % (len(body), hashlib.sha256(body).hexdigest())
    answer = (text + "\n").encode()
    head = [("Content-Type", "text/plain"), ("Content-Length", str(len(answer))), ("X-Worker", WHO)]
    if "HTTP_X_REQUEST_ID" in environ:
        head.append(("X-Request-Id", environ["HTTP_X_REQUEST_ID"]))
    start_response("200 OK", head)
    return [answer]
