-- How far a claim's look got (note_low_water), when looks take long: others need not look at less.
ALTER TABLE streamvibe.claim ADD COLUMN low_water text;
