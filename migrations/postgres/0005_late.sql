-- What a statement that was held up on its way needs: it can refuse to run after its time.

-- Ends the statement that calls it: it arrived when nobody waited for it any more. It is called only in the branch where that was
-- found.
CREATE FUNCTION refuse_late() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION 'the statement arrived too late' USING ERRCODE = 'AS002';
END
$$;
