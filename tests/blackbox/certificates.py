"""A certificate authority of the tests, and a certificate signed by it."""
import dataclasses
import pathlib

from processes import run


@dataclasses.dataclass
class Certificates:
    ca: pathlib.Path
    cert: pathlib.Path
    key: pathlib.Path


def make_certificates(folder, names=("mx.test", "sink.test")):
    """A key pair for `names` in `folder`."""
    folder = pathlib.Path(folder)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    cert, key, request = folder / "cert.pem", folder / "key.pem", folder / "request.pem"
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in names) + "\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for args in (
            ["req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "30",
             "-subj", "/CN=Test authority"],
            ["req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={names[0]}"],
            ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
             "-out", cert, "-days", "30", "-extfile", extensions]):
        done = run(["openssl", *args])
        assert done.returncode == 0, done.stderr
    key.chmod(0o600)
    return Certificates(ca, cert, key)
