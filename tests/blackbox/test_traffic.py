"""Mail in and out, with the programs that others use: swaks, smtplib, smtp-source, smtp-sink, Postfix."""
import re

import pytest

from clients import send, smtp_source, swaks
from daemon import to_hosts
from waiting import until


def test_swaks(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    done = swaks(router, "--to", "b@rcpt.test", "--header", "Subject: by swaks", "--body", "hello")
    assert done.returncode == 0, done.stdout
    mail = host.wait()[0]
    assert (mail.sender, mail.recipients) == ("a@sender.test", ["b@rcpt.test"])
    assert mail.subject == "by swaks"
    assert mail.message.get_payload().strip() == "hello"


def test_smtplib(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    send(router, ["b@rcpt.test", "c@rcpt.test"], test_id="one", body=".dots\n..are\n.\nkept")
    mail = host.wait()[0]
    assert sorted(mail.recipients) == ["b@rcpt.test", "c@rcpt.test"]
    assert mail.content.endswith(b"\r\n\r\n.dots\r\n..are\r\n.\r\nkept\r\n")


def test_trace_header(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    send(router, test_id="one")
    received = host.wait()[0].message.get_all("Received")
    assert len(received) == 1
    text = " ".join(received[0].split())
    assert re.match(r"from client\.test \(.*\[127\.0\.0\.1\]\) by mx\.test .*with ESMTP id \S+.*; "
                    r"\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", text), text


def test_large_message_is_not_changed(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    body = "\n".join(f"{n:07d} " + "x" * 60 for n in range(50_000))  # 3.4 MB
    send(router, test_id="large", body=body)
    content = host.wait(timeout=40)[0].content
    assert content.split(b"\r\n\r\n", 1)[1] == body.replace("\n", "\r\n").encode() + b"\r\n"


@pytest.mark.heavy
def test_a_thousand_messages_in_twenty_sessions(tern, smtp_sink):
    router = tern(to_hosts(smtp_sink))
    source = smtp_source(router, 1000, 20)
    assert source.wait(60) == 0, source.stderr()
    mails = until(lambda: (m := smtp_sink.mails()) and len(m) >= 1000 and m,
                  lambda: f"{len(smtp_sink.mails())} of 1000 mails came", timeout=60, interval=0.2)
    recipients = [r for m in mails for r in m]
    assert len(recipients) == len(set(recipients)) == 1000
    assert all(re.fullmatch(r"\d+b@rcpt\.test", r) for r in recipients)


def test_postfix_receives_over_tls(tern, postfix):
    router = tern(to_hosts(postfix))
    send(router, test_id="to-postfix")
    mail = postfix.wait_mail(b"X-Test-Id: to-postfix")
    assert b"Return-Path: <a@sender.test>" in mail
    assert re.search(rb"using TLSv1\.[23] with cipher", mail), mail.decode()
    assert router.wait_for("delivered", recipient="b@rcpt.test")["tls"].startswith("TLSv1.")


def test_starttls_in(tern, sink, certificates):
    host = sink()
    router = tern(to_hosts(host), certificates=certificates)
    done = swaks(router, "--to", "b@rcpt.test", "--tls", "--tls-verify",
                 "--tls-ca-path", certificates.ca, "--tls-sni", "mx.test")
    assert done.returncode == 0, done.stdout
    assert "TLS started with cipher TLSv1." in done.stdout
    host.wait()
    assert router.wait_for("message_accepted")["tls"] is True
    assert "ESMTPS" in host.mails[0].message["Received"]


def test_tls_from_the_first_byte(new_tern, sink, certificates):
    host = sink()
    router = new_tern(certificates=certificates)
    router.configure(to_hosts(host) + f"""\
  listen = {{ {{ "{router.ip}:465", tls = "implicit" }}, {{ "{router.ip}:587", tls = "require" }} }},
""")
    router.start()
    done = swaks(router, "--to", "b@rcpt.test", "--tlsc", port=465)
    assert done.returncode == 0, done.stdout
    in_clear = swaks(router, "--to", "b@rcpt.test", port=587)
    assert in_clear.returncode != 0 and "530 5.7.0" in in_clear.stdout, in_clear.stdout
    host.wait()
    assert len(host.mails) == 1


def test_starttls_out(tern, sink, certificates):
    host = sink(certificates=certificates)
    router = tern(to_hosts(host, options='tls = "require"'))
    send(router, test_id="one")
    assert host.wait()[0].tls


def test_out_verified_by_name(tern, sink, nsd, certificates):
    host = sink(certificates=certificates)
    zone = nsd(f"sink.test. A {host.ip}")
    router = tern(to_hosts("sink.test", options='tls = "verify"'), dns=zone,
                  certificates=certificates)
    send(router, test_id="one")
    assert host.wait()[0].tls


@pytest.mark.parametrize("policy", ["require", "verify"])
def test_out_never_in_clear_where_tls_is_required(tern, sink, certificates, policy):
    """A host without STARTTLS, and one whose certificate has another name."""
    host = sink(certificates=certificates if policy == "verify" else None)
    router = tern(to_hosts(host, options=f'tls = "{policy}"'), certificates=certificates)
    send(router, test_id="one")
    failed = router.wait_for("host_failed")
    assert "TLS" in failed["why"], failed
    assert host.mails == []


def test_opportunistic_tls_falls_back(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    send(router, test_id="one")
    assert host.wait()[0].tls is False
