-- Of how long jobs waited and took, sixteen buckets of the sketch together as well (minutes -2: of all time): where a percentile falls is
-- found among them, and of the buckets only those of its group are read. See docs/decisions/0010-statistics.md.
-- Who adds up as the release before did would leave groups out: it is waited for, and from then on, also when it has just been called,
-- does not find the row that it locks first, under that name.
ALTER TABLE streamvibe.stat_keeper RENAME TO stat_lock;
ALTER TABLE streamvibe.stat_lock RENAME CONSTRAINT stat_keeper_pkey TO stat_lock_pkey;
ALTER TABLE streamvibe.stat_lock RENAME CONSTRAINT stat_keeper_only_row_check TO stat_lock_only_row_check;
ALTER TABLE streamvibe.stat_sketch DROP CONSTRAINT stat_sketch_minutes_check,
    ADD CONSTRAINT stat_sketch_minutes_check CHECK (minutes IN (-2, -1, 0, 60));
INSERT INTO streamvibe.stat_sketch (leaf_number, minutes, since, job_type, measure, bucket, jobs)
SELECT s.leaf_number, -2, s.since, s.job_type, s.measure, s.bucket >> 4, sum(s.jobs)
FROM streamvibe.stat_sketch s WHERE s.minutes = 0
GROUP BY s.leaf_number, s.since, s.job_type, s.measure, s.bucket >> 4;
