-- A statement without what it says of anybody: string and number constants and comments become ?, a body in dollar quotes is cut
-- off, and so is what follows a thousand characters. pg_stat_statements does most of that itself, but not for utility statements,
-- comments, and a statement that was forgotten while it ran. What cannot be told apart (a comment within a comment, an open
-- quote) leaves the first word only.
CREATE OR REPLACE FUNCTION streamvibe.without_literals(p_statement text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Tags of dollar quotes do not begin with a digit: $1 is a parameter.
    v_said text := regexp_replace(p_statement, '\$([^\s$''"0-9][^\s$''"]*)?\$.*$', '…');
BEGIN
    -- In one pass, since each of these may contain what looks like the begin of another. Quoted names stay.
    v_said := regexp_replace(v_said, '("([^"]|"")*")'
                             || '|(?<!\w)[eE]''([^''\\]|\\.|'''')*''|''([^'']|'''')*'''
                             || '|--[^\n\r]*|/\*([^*]|\*+[^*/])*\*+/'
                             || '|(?<![\w$])\.?[0-9][\w.]*', '\1?', 'g');
    v_said := regexp_replace(v_said, '("([^"]|"")*")\?', '\1', 'g');
    -- Comments that it begins with.
    v_said := btrim(regexp_replace(regexp_replace(v_said, '\s+', ' ', 'g'), '^[? ]+', ''));
    IF v_said ~ '''|/\*|\*/' OR mod(length(v_said) - length(replace(v_said, '"', '')), 2) = 1 THEN
        RETURN substring(v_said FROM '\w+') || ' …';
    END IF;
    RETURN CASE WHEN length(v_said) > 1000 THEN left(v_said, 999) || '…' ELSE v_said END;
END
$$;
