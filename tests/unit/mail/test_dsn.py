"""Run by test_dsn: reads the notification that it wrote, with Python's own parser."""
import email
import email.policy
import sys

with open(sys.argv[1], "rb") as f:
    message = email.message_from_binary_file(f, policy=email.policy.SMTP)

assert not message.defects, message.defects
assert message.get_content_type() == "multipart/report"
assert message.get_param("report-type") == "delivery-status"
assert message["To"].addresses[0].addr_spec == "a@sender.example"
assert message["From"].addresses[0].display_name == "Mail Delivery System"
assert message["Date"].datetime is not None
text, report, original = message.get_payload()
for part in (text, report, original):
    assert not part.defects, part.defects
assert text.get_content_type() == "text/plain"
assert "no such mailbox" in text.get_content()
assert report.get_content_type() == "message/delivery-status"
per_message, first, second = report.get_payload()
assert per_message["Reporting-MTA"] == "dns; mx.tern.example"
assert first["Action"] == "failed" and first["Status"] == "5.1.1"
assert first["Final-Recipient"] == "rfc822; u@example.com"
assert second["Action"] == "delayed" and second["Will-Retry-Until"]
assert original.get_content_type() == "message/rfc822"
assert original.get_payload(0)["Subject"] == "A plain question"
assert original.get_payload(0).get_payload() == "The body.\n", original.get_payload(0).get_payload()
