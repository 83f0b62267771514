-- The same name is the same id in every schema, so that tests can say id('order', 1).
CREATE FUNCTION id(name text, number int) RETURNS uuid LANGUAGE sql IMMUTABLE
    RETURN md5(name || number)::uuid;

-- An id as it crosses a wire: wire('ord', id('order', 1)).
CREATE FUNCTION wire(prefix text, id uuid) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN prefix || '_' || replace(id::text, '-', '');

-- When the purchase with this number began: one every two minutes, the last a while ago.
CREATE FUNCTION began(number int) RETURNS timestamptz LANGUAGE sql STABLE
    RETURN now() - interval '30 minutes' + number * interval '2 minutes';
