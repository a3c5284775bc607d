"""Private names of torch, uvicorn and Ray's HAProxy template that serving uses: one test each.

A test that fails after an upgrade says what to do.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import uvicorn.config
import uvicorn.protocols.http.auto

from serve import haproxy, haproxy_config, haproxy_errors
from serve.asgi.uvicorn_patch import patch_uvicorn
from serve.engines.torch_internals import PackedWeight, has_packed_weights
from trainer.spec.serve import ServeSpec

TORCH_FIX = (
    "torch {version} has no usable torch.ops.mkldnn.{name} any more. serve/engines/packed.py then multiplies with "
    "torch.nn.functional.linear, which is slower for short texts. Look in torch/_inductor for the operation that replaced it "
    "and use that in serve/engines/torch_internals.py, or delete `PackedWeight` there and measure torch-packed again."
)
UVICORN_FIX = (
    "uvicorn no longer finds its HTTP protocol by the name uvicorn.protocols.http.auto.AutoHTTPProtocol, so connections have "
    "no limits and errors are text. Find the class that `http='auto'` means now, and replace it in serve/asgi/uvicorn_patch.py."
)
HAPROXY_FIX = (
    "Ray's HAProxy template changed: {change} is not applied. Compare ray/serve/_private/haproxy_templates.py with the `sed` "
    "expressions in serve/haproxy.py and with serve/haproxy_config.py, and use a setting of Ray's if there is one now."
)

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN, so the fallback is used"
)


@needs_onednn
@pytest.mark.parametrize("name", ["_reorder_linear_weight", "_linear_pointwise"])
def test_torch_has_the_operation(name):
    assert hasattr(torch.ops.mkldnn, name), TORCH_FIX.format(version=torch.__version__, name=name)


@needs_onednn
@pytest.mark.parametrize("gelu", [False, True])
def test_a_packed_weight_computes_the_linear_layer(gelu):
    assert has_packed_weights()
    generator = torch.Generator().manual_seed(0)
    values, weight, bias = (torch.randn(*shape, generator=generator) for shape in [(5, 8), (6, 8), (6,)])
    expected = torch.nn.functional.linear(values, weight, bias)
    expected = torch.nn.functional.gelu(expected) if gelu else expected
    with torch.inference_mode():
        product = PackedWeight(weight, bias, gelu=gelu)(values)
    assert torch.allclose(product, expected, atol=1e-5), TORCH_FIX.format(
        version=torch.__version__, name="_linear_pointwise (it computes something else)"
    )


def test_uvicorn_uses_the_protocol_that_is_replaced(monkeypatch):
    auto = uvicorn.protocols.http.auto
    # An endpoint that another test has started in this process has replaced it already.
    own = next(kind for kind in auto.AutoHTTPProtocol.__mro__ if kind.__module__.startswith("uvicorn."))
    monkeypatch.setattr(auto, "AutoHTTPProtocol", own)  # restored after the test
    assert hasattr(own, "connection_made"), UVICORN_FIX
    patch_uvicorn()
    config = uvicorn.Config(lambda scope, receive, send: None, log_config=None)
    config.load()
    assert config.http_protocol_class is auto.AutoHTTPProtocol is not own, UVICORN_FIX
    assert issubclass(config.http_protocol_class, own), UVICORN_FIX


def fill_template(port, metrics, stats):
    """Return the lines of Ray's template with values in place of its variables; its control statements stay."""
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    values = {
        "config.metrics_port": metrics,
        "config.frontend_host": "127.0.0.1",
        "config.frontend_port": port,
        "config.stats_port": stats,
        "server.name": "SERVE_REPLICA_1",
    }
    return re.sub(r"{{ ([\w.]+) }}", lambda match: str(values.get(match[1], match[1])), HAPROXY_CONFIG_TEMPLATE)


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """The configuration after the script edited it, for an endpoint at 10.0.0.5:8000."""
    monkeypatch.setattr(haproxy, "find_binary", lambda: shutil.which("true"))
    config = tmp_path / "haproxy.cfg"
    spec = ServeSpec(host="10.0.0.5", port=8000, insecure=True, cors_origins=("https://a.example",))
    script = haproxy.write_script(spec, tmp_path, 9101, 9102)
    config.write_text(fill_template(port=8000, metrics=9101, stats=9102))
    subprocess.run(["sh", script, "-f", config], check=True)
    return config.read_text()


#: What both edits have in common: what changes, and how the configuration looks then.
SHARED_CHANGES = [
    ("the mode of the admin socket", r"^ *stats socket .* mode 600 "),
    (
        "503 for unknown paths",
        r"^backend default_backend\n *http-request deny deny_status 400 .*\n *http-request deny deny_status 503\n(?! *http-)",
    ),
    ("more headers", r"^global\n *tune.http.maxhdr 1024$"),
    ("JSON errors", r"^ *http-error status 503 content-type application/json .* hdr Retry-After 1$"),
    (
        "headers for pages elsewhere",
        r"^frontend http_frontend\n(?: *http-.*\n)* *http-after-response set-header access-",
    ),
    (
        "timeouts and buffers of clients",
        r"^defaults\n *timeout http-request 30s\n *timeout queue 30s\n *option http-",
    ),
]


@pytest.mark.parametrize(("change", "pattern"), SHARED_CHANGES)
def test_the_program_for_clusters_edits_rays_haproxy_configuration(change, pattern):
    config = fill_template(port=8000, metrics=9101, stats=9102)
    edited = haproxy_config.edit_for_cluster(config, 30.0, ("https://a.example",))
    assert re.search(pattern, edited, re.MULTILINE), HAPROXY_FIX.format(change=change)
    assert "errorfile" not in edited and "srv_conn(" not in edited
    assert haproxy_config.edit_for_cluster(edited, 30.0, ("https://a.example",)) == edited


def test_the_program_for_clusters_becomes_haproxy(tmp_path):
    config = tmp_path / "haproxy.cfg"
    timeouts = "".join(f"    timeout {name} 5s\n" for name in ("client", "connect", "server"))
    frontend = "frontend http_frontend\n    bind 127.0.0.1:8000\n    default_backend default_backend\n"
    config.write_text(f"global\ndefaults\n    mode http\n{timeouts}{frontend}backend default_backend\n")
    command = [sys.executable, "-m", "serve.haproxy_command", "-c", "-f", config]
    # As on a node: the variable names the program itself.
    program = tmp_path / "raymill-haproxy"
    program.symlink_to("/usr/bin/true")
    env = {**os.environ, "RAY_SERVE_HAPROXY_BINARY_PATH": str(program)}
    root = Path(haproxy.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=env, timeout=60)
    assert done.returncode == 0 and "Configuration file is valid" in done.stdout, done
    assert "option http-buffer-request" in config.read_text()


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        *SHARED_CHANGES,
        ("the loopback address of the metrics page", r"^ *bind 127\.0\.0\.1:9101$"),
        ("the loopback address of the statistics page", r"^ *bind 127\.0\.0\.1:9102$"),
        ("the address of the endpoint", r"^ *bind 127\.0\.0\.1:8000\n *bind 10\.0\.0\.5:8000$"),
        ("the order of idle replicas", r"^ *use-server SERVE_REPLICA_1 if \{ srv_conn\(SERVE_REPLICA_1\) eq 0 \}$"),
    ],
)
def test_the_script_edits_rays_haproxy_configuration(edited, change, pattern):
    assert re.search(pattern, edited, re.MULTILINE), HAPROXY_FIX.format(change=change)


def test_no_error_of_rays_is_left(edited):
    assert "errorfile" not in edited, HAPROXY_FIX.format(change="JSON in place of Ray's error file")


@pytest.mark.skipif(haproxy_config.find_binary() is None, reason="HAProxy is not installed")
def test_a_copy_of_haproxys_program_answers_in_json(tmp_path):
    fix = (
        "HAProxy's messages for what is no HTTP are other constants now. Look for `HTTP/1.1 400` in the program, and change "
        "serve/haproxy_errors.py; if there is a setting for them by now, use that and delete `copy_program`."
    )
    copy = haproxy_errors.copy_program(Path(haproxy_config.find_binary()), tmp_path / "bin")
    assert subprocess.run([copy, "-v"], capture_output=True, check=True).stdout.startswith(b"HAProxy")
    program = copy.read_bytes()
    for status in (400, 408, 500, 501, 503):
        answer = re.search(rb"HTTP/1\.1 %d [^\0]*" % status, program)[0]
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/json" in head and f"content-length: {len(body)}".encode() in head, fix
        assert set(json.loads(body)["error"]) == {"code", "message"}, fix
    assert b"or over 256 headers or 32 KiB" in program, "the whole message no longer fits"


def test_no_page_of_haproxy_listens_on_all_interfaces(edited):
    open_lines = [line for line in edited.splitlines() if re.match(r" *bind (\*|\[::\])?:(9101|9102|8000)$", line)]
    assert not open_lines, HAPROXY_FIX.format(change=f"a bound address ({open_lines})")
