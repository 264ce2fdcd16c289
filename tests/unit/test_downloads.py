"""Downloads over a server that can go on, one that cannot, one that hangs up, and from a file; wrong files refused."""

import hashlib
import http.server
import random
import threading
from functools import partial

import pytest

from hopline import downloads
from hopline.console import InputError, Stopped

CONTENT = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serve `CONTENT`; hang up after so many bytes; remember what was asked for."""

    def __init__(self, *args, ranges, hangs_up_after, asked):
        self.ranges, self.hangs_up_after, self.asked = ranges, hangs_up_after, asked
        super().__init__(*args)

    def do_GET(self):
        """Answer as the settings ask."""
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if self.path != "/file":
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: self.hangs_up_after])

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def serve():
    """Function that starts a server and returns its address and the list of ranges it was asked for."""
    servers = []

    def start(*, ranges=True, hangs_up_after=None):
        asked = []
        handler = partial(Server, ranges=ranges, hangs_up_after=hangs_up_after, asked=asked)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/file", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(tmp_path, serve):
    url, asked = serve()
    assert downloads.fetch(url, tmp_path / "new" / "set.json", sha256=SHA256.upper())
    assert (tmp_path / "new" / "set.json").read_bytes() == CONTENT
    assert not downloads.fetch(url, tmp_path / "new" / "set.json", sha256=SHA256)
    assert asked == [None]
    assert left_in(tmp_path / "new") == ["set.json"]


def test_a_local_file(tmp_path):
    (tmp_path / "there").write_bytes(CONTENT)
    assert downloads.fetch((tmp_path / "there").as_uri(), tmp_path / "here", sha256=SHA256)
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_keeps_what_has_arrived_and_the_next_attempt_goes_on(tmp_path, serve, ranges):
    breaking, _ = serve(hangs_up_after=1_234_567)
    with pytest.raises(Stopped, match=r"1765433 bytes are missing.*1234567 bytes are kept"):
        downloads.fetch(breaking, tmp_path / "set.json", sha256=SHA256)
    assert left_in(tmp_path) == [".set.json.part"]
    url, asked = serve(ranges=ranges)
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert asked == ["bytes=1234567-"]
    assert (tmp_path / "set.json").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["set.json"]


def test_a_part_that_is_longer_than_the_file_is_begun_again(tmp_path, serve):
    (tmp_path / ".set.json.part").write_bytes(bytes(len(CONTENT) + 1))
    url, asked = serve()
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert asked == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_part_that_is_whole_only_wants_its_name(tmp_path, serve):
    (tmp_path / ".set.json.part").write_bytes(CONTENT)
    url, asked = serve()
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert asked == []


def test_another_file_is_refused_and_nothing_is_left(tmp_path, serve):
    url, _ = serve()
    with pytest.raises(InputError, match=f"has the SHA-256 {SHA256}, not {'0' * 64}"):
        downloads.fetch(url, tmp_path / "set.json", sha256="0" * 64)
    assert left_in(tmp_path) == []


def test_a_part_of_another_file_is_found_out(tmp_path, serve):
    (tmp_path / ".set.json.part").write_bytes(bytes(1000))
    url, _ = serve()
    with pytest.raises(InputError, match="nothing was kept"):
        downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert left_in(tmp_path) == []
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)


def test_another_file_in_its_place_is_left_alone(tmp_path, serve):
    (tmp_path / "set.json").write_text("eleven gigabytes and a slip in the hash")
    url, asked = serve()
    with pytest.raises(InputError, match="remove it, or correct the hash"):
        downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert left_in(tmp_path) == ["set.json"]
    assert asked == []


def test_addresses_that_lead_nowhere(tmp_path, serve):
    url, _ = serve()
    with pytest.raises(InputError, match="answers 404 Not Found: check the address"):
        downloads.fetch(url + "s", tmp_path / "a", sha256=SHA256)
    with pytest.raises(InputError, match="cannot be reached"):
        downloads.fetch("http://127.0.0.1:1/file", tmp_path / "a", sha256=SHA256)
    with pytest.raises(InputError, match="cannot be reached"):
        downloads.fetch((tmp_path / "nowhere").as_uri(), tmp_path / "a", sha256=SHA256)
    with pytest.raises(InputError, match="is no address"):
        downloads.fetch("nowhere", tmp_path / "a", sha256=SHA256)
    assert left_in(tmp_path) == []


def test_a_file_of_unknown_content_is_taken_as_it_comes(tmp_path, serve):
    breaking, _ = serve(hangs_up_after=1_234_567)
    with pytest.raises(Stopped, match="1234567 bytes are kept"):
        downloads.fetch(breaking, tmp_path / "a.model", sha256=None)
    url, asked = serve()
    assert downloads.fetch(url, tmp_path / "a.model", sha256=None)
    assert asked == ["bytes=1234567-"]
    assert (tmp_path / "a.model").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["a.model"]


def test_a_file_that_lies_there_is_kept_whatever_it_is_where_nobody_knows_its_hash(tmp_path, serve):
    (tmp_path / "a.model").write_text("put here by hand")
    url, asked = serve()
    assert not downloads.fetch(url, tmp_path / "a.model", sha256=None)
    assert (tmp_path / "a.model").read_text() == "put here by hand"
    assert asked == []
