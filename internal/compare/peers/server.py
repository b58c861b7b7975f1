"""What every peer serves, in plain Python with a thread for each connection: a worker that
takes its socket as systemd hands one over. At TERM it accepts no more, says in its answers
that connections will be closed, and closes those that are idle a second later."""
import hashlib
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

WHO = str(os.getpid())
lock = threading.Lock()
idle = set()
draining = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one_request(self):
        with lock:
            idle.add(self.connection)
        super().handle_one_request()

    def parse_request(self):
        with lock:
            idle.discard(self.connection)
        return super().parse_request()

    def do_GET(self):
        url = urlparse(self.path)
        seconds = int(parse_qs(url.query).get("ms", ["0"])[0]) / 1000
        if url.path != "/stream":
            time.sleep(seconds)
            self.answer(b"hello\n")
            return
        self.head([("Transfer-Encoding", "chunked")])
        for _ in range(10):
            self.wfile.write(b"5\r\npart\n\r\n")
            time.sleep(seconds / 10)
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"%d %s\n" % (len(body), hashlib.sha256(body).hexdigest().encode()))

    def head(self, more):
        self.send_response(200)
        if draining:
            self.send_header("Connection", "close")  # the handler ends it, too
        for name, value in more + [("X-Worker", WHO), ("X-Request-Id", self.headers.get("X-Request-Id", ""))]:
            self.send_header(name, value)
        self.end_headers()

    def answer(self, text):
        self.head([("Content-Length", str(len(text)))])
        self.wfile.write(text)

    def log_message(self, *args):
        pass


class Server(HTTPServer):
    def process_request(self, request, address):
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self.serve, args=(request, address)).start()

    def serve(self, request, address):
        try:
            self.finish_request(request, address)
        except OSError:
            pass
        finally:
            with lock:
                idle.discard(request)
            self.shutdown_request(request)


def notify(text):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text, "\0" + address[1:] if address[0] == "@" else address)


server = Server(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)


def drain(*_):
    def run():
        global draining
        draining = True
        server.shutdown()
        time.sleep(1)
        with lock:
            for connection in idle:
                connection.shutdown(socket.SHUT_RD)
    threading.Thread(target=run).start()


signal.signal(signal.SIGTERM, drain)
notify(b"READY=1")
server.serve_forever(poll_interval=0.05)
