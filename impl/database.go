package impl

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// database is an open database, with what differs between SQLite and PostgreSQL.
type database struct {
	read, write   *sql.DB
	migrationLock mutex
	rowID         string // type of a primary key that numbers rows
	// isUnavailable reports whether an error is the fault of the database, for example because it
	// is unreachable or full, and not of the query.
	isUnavailable func(err error) bool
}

// sqlitePath returns the path of sqlite:path.
func sqlitePath(raw string) (string, bool) { return strings.CutPrefix(raw, "sqlite:") }

// checkURL returns an error if the URL of a database is invalid. The error describes what is
// expected.
func checkURL(raw string) error {
	if path, ok := sqlitePath(raw); ok {
		if path == "" || path == ":memory:" ||
			strings.HasPrefix(path, "//") || strings.HasSuffix(path, "/") {
			return errors.New("expected sqlite: and the path of a file, such as " +
				"sqlite:data/oasgate.db or sqlite:/var/lib/oasgate/oasgate.db")
		}
		return nil
	}
	_, unambiguous := location(raw)
	if _, err := pgx.ParseConfig(raw); err != nil || !unambiguous {
		return errors.New("expected sqlite:path, or a URL such as " +
			"postgres://user:password@host:5432/database?sslmode=verify-full, " +
			"with special characters escaped, such as %40 for @")
	}
	return nil
}

// location returns a postgres: URL without the user, the password and the query. It reports false
// if the URL has an @ that is not the end of the user information: then any part could be a
// password.
func location(raw string) (string, bool) {
	scheme, rest, _ := strings.Cut(raw, "://")
	place, _, _ := strings.Cut(rest, "?")
	place, _, _ = strings.Cut(place, "#")
	authority, path, _ := strings.Cut(place, "/")
	host := authority[strings.LastIndex(authority, "@")+1:]
	all := strings.Count(raw, "@")
	unambiguous := all <= 1 && all == strings.Count(authority, "@")
	return scheme + "://" + host + "/" + path,
		unambiguous && (scheme == "postgres" || scheme == "postgresql")
}

// redacted returns the URL of a database without a password, for logs.
func redacted(raw string) string {
	if _, ok := sqlitePath(raw); ok {
		return raw
	}
	if place, ok := location(raw); ok {
		return place
	}
	return "(hidden, because it can contain a password)"
}

// openSQLite opens a file. SQLite allows one writer at a time. With one connection for writing, the
// writers of this process wait in order; SQLite would retry in intervals.
func openSQLite(raw string, timeout time.Duration) (db database, err error) {
	path, _ := sqlitePath(raw)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return db, err
	}
	source := func(path string, pragmas ...string) string {
		file := url.URL{Scheme: "file", OmitHost: true, Path: path}
		wait := fmt.Sprintf("busy_timeout(%d)", timeout.Milliseconds()) // for other processes
		file.RawQuery = url.Values{
			"_txlock": {"immediate"}, "_pragma": append([]string{wait}, pragmas...),
		}.Encode()
		return file.String()
	}
	pragmas := []string{
		"journal_mode(wal)", // readers do not wait for the writer
		"synchronous(full)", // commits survive a power failure
		"foreign_keys(on)",
	}
	unavailable := func(err error) bool {
		sqliteErr, ok := errors.AsType[*sqlite.Error](err)
		if !ok {
			return false
		}
		switch sqliteErr.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL,
			sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
			sqlite3.SQLITE_INTERRUPT:
			return true
		}
		return false
	}
	lock := func(ctx context.Context, session *sql.Conn) (bool, error) {
		_, err := session.ExecContext(ctx, "BEGIN EXCLUSIVE")
		sqliteErr, ok := errors.AsType[*sqlite.Error](err)
		if ok && sqliteErr.Code()&0xff == sqlite3.SQLITE_BUSY {
			return false, nil
		}
		return err == nil, err
	}
	db = database{
		rowID: "INTEGER PRIMARY KEY AUTOINCREMENT",
		// The lock is on a second file: an exclusive lock on the database itself would wait until
		// no other process has it open.
		migrationLock: mutex{try: lock},
		isUnavailable: unavailable,
	}
	for _, pool := range []struct {
		db     **sql.DB
		source string
		conns  int
	}{
		{&db.write, source(path, pragmas...), 1},
		{&db.read, source(path, append(pragmas, "query_only(on)")...), 4},
		// Not in WAL mode: if several processes switch a new file to it at the same time, one can
		// fail without waiting.
		{&db.migrationLock.db, source(path + "-migrations"), 1},
	} {
		if *pool.db, err = sql.Open("sqlite", pool.source); err != nil {
			return db, errors.Join(err, db.close())
		}
		(*pool.db).SetMaxOpenConns(pool.conns)
		(*pool.db).SetMaxIdleConns(pool.conns)
	}
	return db, nil
}

func openPostgres(raw string, timeout time.Duration) (database, error) {
	config, err := pgx.ParseConfig(raw)
	if err != nil {
		return database{}, err
	}
	hosts := hostsOf(config)
	if config.ConnectTimeout == 0 {
		// For each host. The rest is for the query, so that one host can hang.
		config.ConnectTimeout = timeout / time.Duration(hosts+1)
	}
	if hosts > 1 && config.ValidateConnect == nil &&
		!strings.Contains(raw, "target_session_attrs=") {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// PgBouncer in transaction mode gives each transaction another session, which has no prepared
	// statements. Its older versions fail with them.
	if !strings.Contains(raw, "default_query_exec_mode=") {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	var demoted demotion
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(demoted.connected),
		stdlib.OptionResetSession(demoted.check))
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxLifetime(30 * time.Minute) // to use new nodes
	return database{
		read: db, write: db,
		rowID:         "INTEGER PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY",
		migrationLock: mutex{db, tryPostgresLock},
		isUnavailable: func(err error) bool {
			postgresErr, ok := errors.AsType[*pgconn.PgError](err)
			if !ok {
				return !errors.Is(err, sql.ErrNoRows) // no reply from the server
			}
			if postgresErr.Code == readOnlyTransaction {
				demoted.found()
			}
			return isUnavailableState(postgresErr.Code)
		},
	}, nil
}

// tryPostgresLock takes the lock of the migrations, if it is free. The lock belongs to a
// transaction, because PgBouncer in transaction mode has no sessions.
func tryPostgresLock(ctx context.Context, session *sql.Conn) (taken bool, err error) {
	const lock = "7017280570803617792" // an arbitrary number
	if _, err := session.ExecContext(ctx, "BEGIN"); err != nil {
		return false, err
	}
	err = session.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock("+lock+")").Scan(&taken)
	if !taken {
		_, endErr := session.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		err = errors.Join(err, endErr)
	}
	return taken, err
}

// isUnavailableState reports whether an SQLSTATE means that the same statement may succeed later,
// or elsewhere: https://www.postgresql.org/docs/current/errcodes-appendix.html
func isUnavailableState(state string) bool {
	switch (state + "  ")[:2] {
	case "08", // connection
		"25", // transaction state: a standby is read-only
		"40", // rolled back: serialization, deadlock
		"53", // resources: disk, memory, connections
		"55", // not in the required state
		"57", // operator: shutdown, cancelled
		"58": // system
		return true
	}
	return false
}

// hostsOf returns the number of hosts. A host has several fallbacks if TLS is optional.
func hostsOf(config *pgx.ConnConfig) int {
	type host struct {
		name string
		port uint16
	}
	hosts := map[host]bool{{config.Host, config.Port}: true}
	for _, f := range config.Fallbacks {
		hosts[host{f.Host, f.Port}] = true
	}
	return len(hosts)
}

// readOnlyTransaction is the error of a write to a standby.
const readOnlyTransaction = "25006"

// demotion leaves the connections to a primary that has become a standby. They stay open, and would
// fail all writes for up to half an hour.
type demotion struct {
	last atomic.Pointer[time.Time] // when a standby was found
}

const (
	connectedKey  = "oasgate.connected" // in the data of a connection: when it was connected
	demotionPause = time.Second         // so that an outage does not reconnect all the time
)

// found is called when a write has failed on a standby.
func (d *demotion) found() {
	now, last := time.Now(), d.last.Load()
	if last == nil || now.Sub(*last) > demotionPause {
		d.last.CompareAndSwap(last, &now)
	}
}

// connected is called for each new connection.
func (d *demotion) connected(_ context.Context, conn *pgx.Conn) error {
	conn.PgConn().CustomData()[connectedKey] = time.Now()
	return nil
}

// check is called before each further use of a connection. The pool replaces bad ones.
func (d *demotion) check(_ context.Context, conn *pgx.Conn) error {
	last := d.last.Load()
	since, _ := conn.PgConn().CustomData()[connectedKey].(time.Time)
	if last != nil && !since.After(*last) {
		return driver.ErrBadConn
	}
	return nil
}

// probeDatabase returns an error if a database cannot be reached. It changes nothing.
func probeDatabase(ctx context.Context, url string) error {
	if path, ok := sqlitePath(url); ok {
		// serve creates a file that does not exist.
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return file.Close()
	}
	db, err := openPostgres(url, probeTimeout)
	if err != nil {
		return err
	}
	defer db.close()
	return db.read.PingContext(ctx)
}

const probeTimeout = 5 * time.Second

func (db database) close() error {
	var faults []error
	closed := map[*sql.DB]bool{nil: true}
	for _, pool := range []*sql.DB{db.read, db.write, db.migrationLock.db} {
		if !closed[pool] {
			faults = append(faults, pool.Close())
		}
		closed[pool] = true
	}
	return errors.Join(faults...)
}
