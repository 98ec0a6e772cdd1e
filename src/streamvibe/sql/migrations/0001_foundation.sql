-- Roles, schemas, and the functions that everything else is built on: time, ids, identity.
-- On Supabase the roles and auth.uid() exist already and are left exactly as they are.

DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = v_role) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION
                -- Roles belong to the whole server: another database's migration may have made it just now.
                WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS streamvibe;
COMMENT ON SCHEMA streamvibe IS 'StreamVibe: partitions and support tables. Private; use the functions in public.';
REVOKE ALL ON SCHEMA streamvibe FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;

DO $$
BEGIN
    IF pg_catalog.to_regprocedure('auth.uid()') IS NULL THEN
        CREATE SCHEMA IF NOT EXISTS auth;
        GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
        CREATE FUNCTION auth.uid() RETURNS uuid
            LANGUAGE sql STABLE
            SET search_path = pg_catalog, pg_temp
        AS 'SELECT (nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''sub'')::uuid';
        COMMENT ON FUNCTION auth.uid() IS 'The user of the request, from request.jwt.claims; NULL without one.';
    END IF;
END
$$;

-- The only clock. Test databases replace this function and new_id() (sql/testing/clock.sql); no setting can.
CREATE FUNCTION streamvibe.now() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS 'SELECT pg_catalog.clock_timestamp()';

-- Whole microseconds since 1970. (extract() from a timestamptz is not immutable, from an interval it is.)
CREATE FUNCTION streamvibe.microseconds(p_at timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT (pg_catalog.date_part('epoch', p_at - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
$$;

-- A UUIDv7 of a given moment, in microseconds since 1970, and exact to that: 48 bits of milliseconds, then the microseconds
-- within it scaled to the 12 bits that PostgreSQL 18's own uuidv7() uses for the same purpose. Its other 62 bits are those
-- of p_random.
CREATE FUNCTION streamvibe.make_id(p_us bigint, p_random bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT (pg_catalog.lpad(pg_catalog.to_hex(
                ((p_us / 1000) << 16) | 28672 | (((p_us % 1000) * 4096 + 999) / 1000)), 16, '0')
            || pg_catalog.to_hex((p_random & 4611686018427387903) | (-9223372036854775807 - 1)))::uuid
$$;

-- A number that nobody can foresee.
CREATE FUNCTION streamvibe.random_bits() RETURNS bigint
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS 'SELECT pg_catalog.uuid_hash_extended(pg_catalog.gen_random_uuid(), 0)';

-- The same with random bits of its own. Whoever makes many ids at once asks for random bits once and hashes with them: the
-- operating system takes longer to give them than everything else that a row needs before it is written.
CREATE FUNCTION streamvibe.make_id(p_at timestamptz) RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT streamvibe.make_id(streamvibe.microseconds(p_at), streamvibe.random_bits())
$$;

-- The moment an id was made: created_at of every row. The inverse of make_id().
CREATE FUNCTION streamvibe.id_time(p_id uuid) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT pg_catalog.to_timestamp(
        ((('x' || substr(pg_catalog.encode(pg_catalog.uuid_send(p_id), 'hex'), 1, 12))::bit(48)::bigint * 1000
          + ('x' || substr(pg_catalog.encode(pg_catalog.uuid_send(p_id), 'hex'), 14, 3))::bit(12)::integer * 1000 / 4096
         )::double precision / 1000000))
$$;

-- The smallest id of a moment: bounds an id by time, so that partitions are pruned.
CREATE FUNCTION streamvibe.id_floor(p_at timestamptz) RETURNS uuid
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS $$
    SELECT (pg_catalog.encode(
        substring(pg_catalog.int8send(streamvibe.microseconds(least(greatest(p_at, 'epoch'), '9999-01-01')) / 1000) FROM 3)
        || substring(pg_catalog.int4send((28672 + ((streamvibe.microseconds(least(greatest(p_at, 'epoch'), '9999-01-01'))
                                                    % 1000) * 4096 + 999) / 1000)::integer) FROM 3),
        'hex') || '8000000000000000')::uuid
$$;

DO $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer >= 180000 THEN
        CREATE FUNCTION streamvibe.new_id() RETURNS uuid
            LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT pg_catalog.uuidv7()';
    ELSE
        CREATE FUNCTION streamvibe.new_id() RETURNS uuid
            LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT streamvibe.make_id(streamvibe.now())';
    END IF;
END
$$;

-- What makes two jobs the same work: user, type and params. 64 bits, so equality is always checked as well. The upper half
-- is the user's, so that what one user asks for lies together in the index.
CREATE FUNCTION streamvibe.identity_hash(p_user_id uuid, p_job_type text, p_params jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT (pg_catalog.uuid_hash(p_user_id)::bigint << 32)
           + (pg_catalog.jsonb_hash_extended(p_params, pg_catalog.hashtextextended(p_job_type COLLATE "C", 0)) & 4294967295)
$$;

-- Where a pending job stands among those of its type: the smallest is picked up first. From the top bit down: whether
-- its time was still to come when it was asked for or retried (what is due at once is never behind what is not), its
-- priority, its time. Of a user's jobs that wait at the same time each counts as due a minute after the one before
-- (p_turn): that is the fair share. The year 6500 and a turn of a billion still fit.
CREATE FUNCTION streamvibe.pickup_rank(
    p_priority smallint, p_scheduled_for timestamptz, p_created_at timestamptz, p_turn integer
) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_scheduled_for > p_created_at THEN 4611686018427387904 ELSE p_turn::bigint * 60000000 END
           + ((9 - p_priority)::bigint << 58)
           + (pg_catalog.date_part('epoch', greatest(p_scheduled_for, p_created_at) - '1970-01-01 00:00:00+00'::timestamptz) * 1000000)::bigint
$$;
