"""Django's admin, an application that many know: logins, CSRF tokens, server-made ids, all unknown to staging.

People work in the admin of a project whose books have random UUIDs and whose authors are numbered; the real capture
records them with redaction on. The recording goes to a server with an empty database and the fixtures alone.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest

from replay.config import load
from replay.store.reader import Dataset
from replay.verbs.capture import CaptureProcess, CaptureSettings
from replay.verbs.run import replay_run

pytestmark = pytest.mark.real

RELEASE = "5.2"
PEOPLE, ROUNDS = 4, 3
PASSWORD = "production-secret-1"
STAGING_PASSWORD = "staging-secret-2"

PROJECT = '''
import sys, uuid
from django.conf import settings
settings.configure(
    DEBUG=False, SECRET_KEY=sys.argv[1], ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    INSTALLED_APPS=["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
                    "django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[2],
                           "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"}}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
        "context_processors": ["django.template.context_processors.request",
                               "django.contrib.auth.context_processors.auth",
                               "django.contrib.messages.context_processors.messages"]}}],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", STATIC_URL="/static/",
)
import django
django.setup()
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, models
from django.http import JsonResponse
from django.urls import path

class Author(models.Model):
    name = models.CharField(max_length=80)
    class Meta:
        app_label = "auth"

class Book(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    title = models.CharField(max_length=80)
    author = models.ForeignKey(Author, on_delete=models.CASCADE)
    class Meta:
        app_label = "auth"

admin.site.register(Author)
admin.site.register(Book, search_fields=["title"])

def loans(request, number=None):
    """A small JSON interface beside the admin, behind the same login and the same CSRF token."""
    if not request.user.is_authenticated:
        return JsonResponse({"error": "log in"}, status=401)
    if request.method == "POST":
        author = Author.objects.create(name="a reader")
        return JsonResponse({"loan": {"id": author.pk}}, status=201)
    found = Author.objects.filter(pk=number).first()
    return JsonResponse({"id": found.pk, "name": found.name} if found else {}, status=200 if found else 404)

urlpatterns = [path("admin/", admin.site.urls), path("loans", loans), path("loans/<int:number>", loans)]

call_command("migrate", verbosity=0, interactive=False)
with connection.schema_editor() as editor:
    editor.create_model(Author)
    editor.create_model(Book)
for number in range(int(sys.argv[4])):
    User.objects.create_superuser(f"person{number}", password=sys.argv[3])
for number in range(int(sys.argv[5])):
    Author.objects.create(name=f"author {number}")

from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer
from django.core.servers.basehttp import WSGIRequestHandler, ThreadedWSGIServer
from django.core.wsgi import get_wsgi_application
import logging
logging.disable(logging.CRITICAL)
server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
server.set_app(get_wsgi_application())
print(server.server_port, flush=True)
server.serve_forever()
'''
"""Arguments: secret key, database, everybody's password, how many people, how many authors there are already."""


def environment() -> Path:
    """The Python of a virtual environment with Django, kept outside the repository between runs of the tests."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "staging-replay-tests"
    home = base / f"django-{RELEASE}-py{sys.version_info.major}.{sys.version_info.minor}"
    home.mkdir(parents=True, exist_ok=True)
    python, complete = home / "venv" / "bin" / "python", home / "complete"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", home / "venv"], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"django=={RELEASE}"], check=True, stderr=subprocess.PIPE)
            complete.touch()
    return python


@contextmanager
def library(directory: Path, password: str, authors: int) -> Iterator[str]:
    """Serve the project with a new database; gives the URL. The more authors, the higher the next one's number."""
    directory.mkdir()
    (directory / "project.py").write_text(PROJECT)
    arguments = [os.urandom(16).hex(), directory / "db.sqlite3", password, PEOPLE, authors]
    process = subprocess.Popen(
        [str(part) for part in (environment(), directory / "project.py", *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "Django did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


# --- the traffic


class Browser:
    """One person's browser: keeps cookies, reads forms, follows redirections by hand."""

    def __init__(self, host: str, port: int, number: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self._agent = f"Mozilla/5.0 (person {number})"
        self._cookies: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()
        self.location = ""
        self.body = ""

    def ask(self, method: str, target: str, body: str | None = None, **headers: str) -> int:
        sent = {"User-Agent": self._agent, **headers}
        if self._cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        self._connection.request(method, target, body, sent)
        with self._connection.getresponse() as answer:
            self.body = answer.read().decode()
            for line in answer.headers.get_all("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    self._cookies.pop(name, None)
                    if morsel.value:
                        self._cookies[name] = morsel.value
            self.location = answer.headers.get("Location", "")
            self.statuses[answer.status] += 1
            return answer.status

    def get(self, target: str, status: int = 200) -> None:
        assert self.ask("GET", target) == status, (target, self.body[:500])

    def submit(self, target: str, expected: int = 302, **fields: str) -> None:
        """Post the form that is on the page."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.body)
        assert found is not None, self.body[:500]
        form = urlencode({"csrfmiddlewaretoken": found[1], **fields})
        status = self.ask("POST", target, form, **{"Content-Type": "application/x-www-form-urlencoded"})
        assert status == expected, (target, self.body[:2000])

    def call(self, target: str) -> dict[str, dict[str, int]]:
        token = {"X-CSRFToken": self._cookies["csrftoken"], "Content-Type": "application/json"}
        assert self.ask("POST", target, "{}", **token) == 201
        return json.loads(self.body)

    def close(self) -> None:
        self._connection.close()


def work(host: str, port: int, number: int) -> int:
    """One person's day: add, look at, change and delete authors and books, a few times; how many answers."""
    with closing(Browser(host, port, number)) as browser:
        for lap in range(ROUNDS):
            browser.get("/admin/login/?next=/admin/")
            browser.submit(
                "/admin/login/?next=/admin/", username=f"person{number}", password=PASSWORD, next="/admin/"
            )
            browser.get("/admin/")
            browser.get("/admin/auth/author/add/")
            browser.submit("/admin/auth/author/add/", name=f"writer {number}/{lap}", _continue="1")
            author = browser.location
            browser.get(author)
            browser.get("/admin/auth/book/add/")
            key = author.split("/")[4]
            browser.submit("/admin/auth/book/add/", title=f"Book {lap}", author=key, _continue="1")
            book = browser.location
            browser.get(book)
            browser.submit(book, title=f"Book {lap}, revised", author=key, _continue="1")
            browser.get(book.replace("/change/", "/history/"))
            browser.get(f"/admin/auth/book/?q=revised+{lap}")
            loan = browser.call("/loans")["loan"]["id"]
            browser.get(f"/loans/{loan}")
            browser.get(book.replace("/change/", "/delete/"))
            browser.submit(book.replace("/change/", "/delete/"), post="yes")
            browser.get(author)
            browser.submit(author, name="renamed", _save="1")
            browser.get("/admin/auth/author/")
            browser.submit("/admin/logout/", 200)
        return browser.statuses.total()


@dataclass(frozen=True, slots=True)
class Recording:
    directory: Path
    capture: Path
    config: Path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    directory = tmp_path_factory.mktemp("django")
    with library(directory / "production", PASSWORD, authors=57) as upstream:
        settings = CaptureSettings(
            out=directory / "capture", upstream=upstream, listen="127.0.0.1:0", key_file=directory / "key"
        )
        capture = CaptureProcess(settings)
        host, port = capture.start()
        try:
            with ThreadPoolExecutor(PEOPLE) as people:
                answers = sum(people.map(lambda number: work(host, port, number), range(PEOPLE)))
        finally:
            summary = capture.stop()
    assert summary.books["written"] == answers
    (directory / "users.csv").write_text(f"password\n{STAGING_PASSWORD}\n")
    config = directory / "replay.toml"
    config.write_text(
        '[auth]\nusers = "users.csv"\n'
        '[[rewrite.rule]]\nendpoint = "POST /admin/login*"\nform = "password"\nset = "{user.password}"\n'
    )
    return Recording(directory, directory / "capture", config)


def replayed(recording: Recording, sessions: str) -> tuple[float, Counter[tuple[str, int, int | None]], Path]:
    """The share of the successful requests that were answered with the recorded status; the others, and the run."""
    out = recording.directory / f"run-{sessions}-{time.monotonic_ns()}"
    with library(out.with_suffix(".server"), STAGING_PASSWORD, authors=0) as target:
        settings = load(recording.config).run_settings(writes=("*",), sessions=sessions)
        replay_run(recording.capture, target, out, settings)
    expected = {row.exchange_id: row.status for row in Dataset.open(recording.capture, "capture").rows()}
    rows = [row for row in Dataset.open(out, "run").rows() if expected[row.exchange_id] < 400]
    others = Counter(
        (row.endpoint, expected[row.exchange_id], row.status)
        for row in rows
        if row.status != expected[row.exchange_id]
    )
    return 1 - others.total() / len(rows), others, out


def test_no_secret_of_production_is_in_the_capture(recording: Recording) -> None:
    for part in recording.capture.glob("part-*"):
        assert PASSWORD.encode() not in part.read_bytes()


def test_with_bindings_the_admin_works_on_an_empty_database(recording: Recording) -> None:
    share, others, run = replayed(recording, "live")
    unbound = [row.unbound for row in Dataset.open(run, "run").rows() if row.unbound]
    print(f"with bindings {share:.1%} of the recorded successes succeed again")
    assert share >= 0.99, (others, unbound[:5])


def test_without_bindings_most_of_it_fails(recording: Recording) -> None:
    share, others, _ = replayed(recording, "ordered")
    print(f"without bindings {share:.1%} succeed; {others.total()} fail, such as {others.most_common(3)}")
    assert share < 0.5
