"""For people: plan, explain, doctor, cleanup, record, live view. A process that serves or reaps never loads it."""
