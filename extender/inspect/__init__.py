"""For people: plan, explain, doctor and cleanup. Looks once and ends; a process that stays never loads it."""
