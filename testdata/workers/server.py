"""A worker in plain Python: it takes its socket as systemd hands one over
(sd_listen_fds(3)), and at TERM it finishes what it has."""
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

WHO = "python %s pid=%d" % (os.environ["HANDOVER_WORKER"], os.getpid())
if os.environ["LISTEN_PID"] != str(os.getpid()):
    sys.exit("LISTEN_PID is %s, not %d" % (os.environ["LISTEN_PID"], os.getpid()))
stopping = threading.Event()


class Handler(BaseHTTPRequestHandler):
    # HTTP/1.0: one request a connection. What is accepted is answered.
    def do_GET(self):
        query = parse_qs(urlparse(self.path).query)
        time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
        self.answer(WHO + "\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer("%d %s\n" % (len(body), hashlib.sha256(body).hexdigest()))

    def answer(self, text):
        self.send_response(200)
        self.send_header("X-Worker", WHO)
        if "X-Request-Id" in self.headers:
            self.send_header("X-Request-Id", self.headers["X-Request-Id"])
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


class Server(HTTPServer):
    # A thread for each connection, and the process ends when all have ended.
    def process_request(self, request, address):
        threading.Thread(target=self.serve, args=(request, address)).start()

    def serve(self, request, address):
        try:
            self.finish_request(request, address)
        finally:
            self.shutdown_request(request)


def notify(text):
    if addr := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(text.encode(), "\0" + addr[1:] if addr[0] == "@" else addr)


server = Server(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
# Two processes may see the same connection come, and only one can accept it.
server.socket.setblocking(False)


def drain(*_):
    print("draining", flush=True)
    notify("STOPPING=1")
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, drain)
print("serving", flush=True)
notify("READY=1\nSTATUS=serving")
server.serve_forever(poll_interval=0.05)
