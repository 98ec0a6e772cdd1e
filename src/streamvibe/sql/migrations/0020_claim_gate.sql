-- Whoever claims many jobs has this table locked meanwhile (streamvibe.enter_claim_gate). It holds nothing: a lock on a table
-- is written nowhere, and only who may claim can take it.
CREATE TABLE streamvibe.claim_gate ();
