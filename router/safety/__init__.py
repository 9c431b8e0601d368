"""Which arms may be used, and how much: guard, guardrails, canaries, schedules, switches, and what judges them."""
