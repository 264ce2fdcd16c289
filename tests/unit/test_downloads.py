"""Downloads over servers that can go on, cannot, hang up, change the file or are busy, and from a file."""

import hashlib
import http.server
import random
import threading
from dataclasses import dataclass, field

import pytest
from small import call_script

from hopline import downloads
from hopline.console import EXIT_TRY_AGAIN, InputError, Stopped

CONTENT = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


OTHER = random.Random(2).randbytes(3_000_000)
"""What lies at the address later on."""
DATE, LATER = "Mon, 02 Feb 2026 10:00:00 GMT", "Tue, 03 Feb 2026 10:00:00 GMT"


@dataclass
class Behaviour:
    """How a server answers, and what it was asked for: the headers Range and If-Range of each request."""

    content: bytes = CONTENT
    ranges: bool = True
    if_range: bool = True
    hangs_up_after: int | None = None
    headers: dict = field(default_factory=dict)
    status: int | None = None
    asked: list = field(default_factory=list)


class Server(http.server.BaseHTTPRequestHandler):
    """Serve what the server's ``behaviour`` says, with ranges and versions as RFC 9110 has them."""

    def do_GET(self):
        """Answer as the settings ask."""
        does = self.server.behaviour
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        does.asked.append((wanted, version))
        if does.status or self.path != "/file":
            self.send_error(does.status or 404)
            return
        same = not does.if_range or version is None or version in does.headers.values()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and does.ranges and same else 0
        if start >= len(does.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(does.content) - start))
        for name, value in does.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(does.content[start:][: does.hangs_up_after])

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def serve():
    """Function that starts a server and returns its address and its behaviour, which may be changed."""
    servers = []

    def start(**settings):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        server.behaviour = Behaviour(**settings)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/file", server.behaviour

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(tmp_path, serve):
    url, does = serve()
    assert downloads.fetch(url, tmp_path / "new" / "set.json", sha256=SHA256.upper())
    assert (tmp_path / "new" / "set.json").read_bytes() == CONTENT
    assert not downloads.fetch(url, tmp_path / "new" / "set.json", sha256=SHA256)
    assert does.asked == [(None, None)]
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
    url, does = serve(ranges=ranges)
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert does.asked == [("bytes=1234567-", None)]
    assert (tmp_path / "set.json").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["set.json"]


def test_a_part_that_is_longer_than_the_file_is_begun_again(tmp_path, serve):
    (tmp_path / ".set.json.part").write_bytes(bytes(len(CONTENT) + 1))
    url, does = serve()
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert does.asked == [(f"bytes={len(CONTENT) + 1}-", None), (None, None)]


def test_a_part_that_is_whole_only_wants_its_name(tmp_path, serve):
    (tmp_path / ".set.json.part").write_bytes(CONTENT)
    url, does = serve()
    assert downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert does.asked == []


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
    url, does = serve()
    with pytest.raises(InputError, match="remove it, or correct the hash"):
        downloads.fetch(url, tmp_path / "set.json", sha256=SHA256)
    assert left_in(tmp_path) == ["set.json"]
    assert does.asked == []


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


def break_off(does, url, folder, sha256=None):
    """Fetch a file up to where the server hangs up, and have it hang up no more."""
    does.hangs_up_after = 1_234_567
    with pytest.raises(Stopped, match="1234567 bytes are kept"):
        downloads.fetch(url, folder / "a.model", sha256=sha256)
    does.hangs_up_after = None
    does.asked.clear()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"ETag": '"abc"'}, '"abc"'),
        ({"Last-Modified": DATE}, DATE),
        ({"ETag": '"abc"', "Last-Modified": DATE}, '"abc"'),
    ],
)
def test_of_unknown_content_the_rest_of_the_same_version_is_asked_for(
    tmp_path, serve, headers, version, ranges
):
    url, does = serve(headers=headers, ranges=ranges)
    break_off(does, url, tmp_path)
    assert left_in(tmp_path) == [".a.model.part", ".a.model.part.version"]
    assert downloads.fetch(url, tmp_path / "a.model", sha256=None)
    assert does.asked == [("bytes=1234567-", version)]
    assert (tmp_path / "a.model").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["a.model"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"abc"', "Last-Modified": DATE}])
def test_of_unknown_content_and_version_all_is_fetched_again(tmp_path, serve, headers):
    url, does = serve(headers=headers)
    break_off(does, url, tmp_path)
    assert downloads.fetch(url, tmp_path / "a.model", sha256=None)
    assert does.asked == [(None, None)]
    assert (tmp_path / "a.model").read_bytes() == CONTENT


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [({"ETag": '"abc"'}, {"ETag": '"def"'}), ({"Last-Modified": DATE}, {"Last-Modified": LATER})],
)
def test_of_a_file_that_changed_in_between_no_half_is_kept(tmp_path, serve, before, after, if_range):
    url, does = serve(headers=before, if_range=if_range)
    break_off(does, url, tmp_path)
    does.content, does.headers = OTHER, after
    assert downloads.fetch(url, tmp_path / "a.model", sha256=None)
    assert (tmp_path / "a.model").read_bytes() == OTHER
    # one that does not know If-Range sends another version's rest: all of it is asked for then
    assert [wanted for wanted, _ in does.asked] == ["bytes=1234567-", *([] if if_range else [None])]
    assert left_in(tmp_path) == ["a.model"]


def test_a_version_is_that_of_its_address(tmp_path, serve):
    url, does = serve(headers={"Last-Modified": DATE})
    break_off(does, url, tmp_path)
    other, elsewhere = serve(headers={"Last-Modified": DATE}, content=OTHER)
    assert downloads.fetch(other, tmp_path / "a.model", sha256=None)
    assert elsewhere.asked == [(None, None)]
    assert (tmp_path / "a.model").read_bytes() == OTHER


def test_of_known_content_a_part_of_another_version_is_not_gone_on_from(tmp_path, serve):
    url, does = serve(content=OTHER, headers={"ETag": '"abc"'})
    break_off(does, url, tmp_path, sha256=SHA256)
    does.content, does.headers = CONTENT, {"ETag": '"def"'}
    assert downloads.fetch(url, tmp_path / "a.model", sha256=SHA256)
    assert does.asked == [("bytes=1234567-", '"abc"')]
    assert (tmp_path / "a.model").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_busy_server_is_tried_again_later(tmp_path, serve, status, sha256):
    url, does = serve(headers={"ETag": '"abc"'})
    break_off(does, url, tmp_path, sha256)
    does.status = status
    with pytest.raises(Stopped, match=f"answers {status} .* try again later: 1234567 bytes are kept"):
        downloads.fetch(url, tmp_path / "a.model", sha256=sha256)
    does.status = None
    assert downloads.fetch(url, tmp_path / "a.model", sha256=sha256)
    assert does.asked == 2 * [("bytes=1234567-", '"abc"')]
    assert (tmp_path / "a.model").read_bytes() == CONTENT


def test_the_same_command_goes_on_after_a_busy_server(tmp_path, serve, capsys):
    url, does = serve(status=503)
    arguments = ["fetch_replay", "--url", url, "--sha256", SHA256, "--source", tmp_path / "set.json"]
    assert call_script(*arguments) == EXIT_TRY_AGAIN == 75
    assert "answers 503 Service Unavailable: the server is busy" in capsys.readouterr().err
    does.status = None
    assert call_script(*arguments) == 0
    assert (tmp_path / "set.json").read_bytes() == CONTENT


def test_a_file_that_lies_there_is_kept_whatever_it_is_where_nobody_knows_its_hash(tmp_path, serve):
    (tmp_path / "a.model").write_text("put here by hand")
    url, does = serve()
    assert not downloads.fetch(url, tmp_path / "a.model", sha256=None)
    assert (tmp_path / "a.model").read_text() == "put here by hand"
    assert does.asked == []
