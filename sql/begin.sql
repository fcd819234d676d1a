/* datamart_users--1.0.sql, made from sql/ by make */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION datamart_users" to load this file. \quit

--
-- From here on a name without a schema means the server's own object: views
-- and function bodies are bound to what is found when they are created, and in
-- the extension's schema somebody may have put an operator or a function that
-- fits better.  Our own objects are named with their schema.
--
SET LOCAL search_path = pg_catalog, pg_temp;

--
-- Somebody may have been in the schema before us.
--
CREATE FUNCTION pg_temp.datamart_users_refuse_existing() RETURNS void
AS 'MODULE_PATHNAME', 'datamart_users_refuse_existing' LANGUAGE C;
SELECT pg_temp.datamart_users_refuse_existing();
DROP FUNCTION pg_temp.datamart_users_refuse_existing();

