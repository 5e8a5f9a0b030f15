"""What is to be reached, and by how much it is missed."""


def goal(text, value, limit, at_most=True):
    """`value` is a number, or None where it could not be measured (no Postfix, no such counter)."""
    met = None if value is None else value <= limit if at_most else value >= limit
    result = {"goal": text, "value": None if value is None else round(value, 4), "limit": round(limit, 4),
              "at_most": at_most, "met": met}
    if met is False:
        # how many times too much, or too little
        worse = value / limit if at_most else limit / value if value else float("inf")
        result["missed_by"] = round(worse, 3)
    return result


def ratio(a, b):
    return a / b if a is not None and b else None


def against(measured, key, best):
    """Tern's median over that of the better Postfix: best is min (processor time) or max (rates)."""
    others = [measured[k]["median"].get(key) for k in ("postfix", "postfix-tuned") if k in measured]
    others = [x for x in others if x is not None]
    return ratio(measured["tern"]["median"].get(key), best(others) if others else None)


def cpu_goal(measured, part):
    return goal(f"processor time per message, of the better Postfix's: at most 1/{part}",
                against(measured, "cpu_s_per_1000", min), 1 / part)


def rate_goal(measured, key, times):
    what = "delivered" if key == "delivered_per_s" else "accepted"
    return goal(f"{what} per second, of the better Postfix's: at least {times:g} times",
                against(measured, key, max), times, at_most=False)
