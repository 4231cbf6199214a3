package impl

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// keysKept is how long an Idempotency-Key is remembered.
const keysKept = 24 * time.Hour

// StoreConfig says where a store is. Only URL has no default.
type StoreConfig struct {
	// URL is sqlite: and the path of a file, or postgres:// and so on, as libpq has it. Whatever speaks PostgreSQL's
	// protocol and knows its SQL will do: a distributed database of that kind is the way past one machine.
	URL string
	// Timeout bounds every use of the database. Default 5 s.
	Timeout time.Duration
	Logger  *slog.Logger     // default slog.Default()
	Now     func() time.Time // default time.Now
}

// Store keeps [Messages] in an SQL database. Its SQL is what SQLite and PostgreSQL have in common; where they differ is
// in [openSQLite] and [openPostgres]. It is safe for concurrent use, also by several processes on one database.
type Store struct {
	database
	timeout time.Duration
	now     func() time.Time
	stop    context.CancelFunc // of sweep
	stopped chan struct{}
}

// OpenStore opens the database, creating it if it is a file, and brings its tables up to date.
func OpenStore(ctx context.Context, config StoreConfig) (*Store, error) {
	if err := checkDatabaseURL(config.URL); err != nil {
		return nil, fmt.Errorf("the database's URL is %q: expected %w", redacted(config.URL), err)
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Timeout == 0 {
		config.Timeout = 5 * time.Second
	}
	open := openPostgres
	if _, ok := sqlitePath(config.URL); ok {
		open = openSQLite
	}
	db, err := open(config.URL, config.Timeout)
	if err != nil {
		return nil, fmt.Errorf("the database %s cannot be opened: %w", redacted(config.URL), err)
	}
	if err := db.migrate(ctx, config.Logger); err != nil {
		return nil, errors.Join(fmt.Errorf("the tables of the database %s cannot be brought up to date: %w", redacted(config.URL), err), db.close())
	}
	s := &Store{database: db, timeout: config.Timeout, now: config.Now, stopped: make(chan struct{})}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	config.Logger.Info("opened the database", "database", redacted(config.URL))
	go s.sweepHourly(life, config.Logger)
	return s, nil
}

// Close closes the database. Requests must have ended.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return s.close()
}

func (s *Store) Create(ctx context.Context, owner Owner, text, key string) (m Message, err error) {
	ctx, done := s.bound(ctx, "creating a message", &err)
	defer done()
	id, err := uuid.NewV7()
	if err != nil {
		return Message{}, err
	}
	m = Message{ID: id.String(), Owner: owner, Text: text, Version: 1}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return Message{}, err
	}
	defer tx.Rollback()
	if key != "" {
		switch first, err := s.claim(ctx, tx, key, m); {
		case err != nil:
			return Message{}, err
		case first != m.ID:
			m.ID = first
			return m, nil
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO messages (id, issuer, subject, text, version) VALUES ($1, $2, $3, $4, $5)`,
		m.ID, m.Owner.Issuer, m.Owner.Subject, m.Text, m.Version); err != nil {
		return Message{}, err
	}
	return m, tx.Commit()
}

// claim returns the id of the message that the owner's key belongs to: m's, if the key was free. Of several requests
// with one key at a time, the others wait here until the first has been committed.
func (s *Store) claim(ctx context.Context, tx *sql.Tx, key string, m Message) (id string, err error) {
	now := s.now()
	sum := sha256.Sum256([]byte(m.Text))
	body := hex.EncodeToString(sum[:])
	claimed, err := tx.ExecContext(ctx, `
		INSERT INTO idempotency_keys (issuer, subject, key, body, message, expires) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (issuer, subject, key) DO UPDATE SET body = excluded.body, message = excluded.message, expires = excluded.expires
		WHERE idempotency_keys.expires <= $7`,
		m.Owner.Issuer, m.Owner.Subject, key, body, m.ID, now.Add(keysKept).Unix(), now.Unix())
	if err != nil {
		return "", err
	}
	if n, err := claimed.RowsAffected(); err != nil || n == 1 {
		return m.ID, err
	}
	var before string
	err = tx.QueryRowContext(ctx, `SELECT body, message FROM idempotency_keys WHERE issuer = $1 AND subject = $2 AND key = $3`,
		m.Owner.Issuer, m.Owner.Subject, key).Scan(&before, &id)
	if err == nil && before != body {
		err = errKeyReused
	}
	return id, err
}

func (s *Store) List(ctx context.Context, whose Whose, before string, limit int) (found []Message, err error) {
	ctx, done := s.bound(ctx, "listing messages", &err)
	defer done()
	q := of(whose)
	if before != "" {
		q.and("id <", before)
	}
	q.args = append(q.args, limit)
	rows, err := s.read.QueryContext(ctx, fmt.Sprintf(`SELECT id, issuer, subject, text, version FROM messages WHERE %s ORDER BY id DESC LIMIT $%d`, q.sql, len(q.args)), q.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m Message
		if err := rows.Scan(&m.ID, &m.Owner.Issuer, &m.Owner.Subject, &m.Text, &m.Version); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

func (s *Store) Get(ctx context.Context, whose Whose, id string) (m Message, err error) {
	ctx, done := s.bound(ctx, "getting a message", &err)
	defer done()
	return s.get(ctx, whose, id)
}

func (s *Store) get(ctx context.Context, whose Whose, id string) (m Message, err error) {
	q := of(whose)
	q.and("id =", id)
	err = s.read.QueryRowContext(ctx, `SELECT id, issuer, subject, text, version FROM messages WHERE `+q.sql, q.args...).
		Scan(&m.ID, &m.Owner.Issuer, &m.Owner.Subject, &m.Text, &m.Version)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoMessage
	}
	return m, err
}

func (s *Store) Replace(ctx context.Context, owner Owner, id, text string, matches func(version int64) bool) (m Message, err error) {
	ctx, done := s.bound(ctx, "replacing a message", &err)
	defer done()
	err = s.change(ctx, owner, id, matches, func(found Message) (sql.Result, error) {
		m = found
		m.Text, m.Version = text, found.Version+1
		return s.write.ExecContext(ctx, `UPDATE messages SET text = $1, version = $2 WHERE id = $3 AND version = $4`, m.Text, m.Version, id, found.Version)
	})
	return m, err
}

func (s *Store) Delete(ctx context.Context, owner Owner, id string, matches func(version int64) bool) (err error) {
	ctx, done := s.bound(ctx, "deleting a message", &err)
	defer done()
	return s.change(ctx, owner, id, matches, func(found Message) (sql.Result, error) {
		return s.write.ExecContext(ctx, `DELETE FROM messages WHERE id = $1 AND version = $2`, id, found.Version)
	})
}

// change changes a message that matches. The statement names the version that was found, so that it does nothing where
// another was faster; then all is looked at again.
func (s *Store) change(ctx context.Context, owner Owner, id string, matches func(version int64) bool, statement func(found Message) (sql.Result, error)) error {
	for {
		found, err := s.get(ctx, Whose{Owner: owner}, id)
		if err != nil {
			return err
		}
		if !matches(found.Version) {
			return errChanged
		}
		result, err := statement(found)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 1 {
			return err
		}
	}
}

// filter is the condition of a query, and its arguments.
type filter struct {
	sql  string
	args []any
}

// of begins every query: a message that is not one of those meant is not found.
func of(whose Whose) filter {
	q := filter{sql: "TRUE"}
	if !whose.Everybody {
		q.and("issuer =", whose.Owner.Issuer)
		q.and("subject =", whose.Owner.Subject)
	}
	return q
}

func (q *filter) and(condition string, arg any) {
	q.args = append(q.args, arg)
	q.sql += fmt.Sprintf(" AND %s $%d", condition, len(q.args))
}

// bound gives a call its time, and has its error say what was being done, and whether the database is to blame.
func (s *Store) bound(ctx context.Context, doing string, err *error) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	return ctx, func() {
		defer cancel()
		switch {
		case *err == nil, errors.Is(*err, errNoMessage), errors.Is(*err, errChanged), errors.Is(*err, errKeyReused):
		case ctx.Err() != nil, s.lost(*err):
			*err = fmt.Errorf("%s: %w: %w", doing, errUnavailable, *err)
		default:
			*err = fmt.Errorf("%s: %w", doing, *err)
		}
	}
}

// sweepHourly forgets the idempotency keys that have expired.
func (s *Store) sweepHourly(ctx context.Context, log *slog.Logger) {
	defer close(s.stopped)
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hourly.C:
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			log.Warn("expired idempotency keys remain", "cause", err)
		}
	}
}

func (s *Store) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := s.write.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE expires <= $1`, s.now().Unix())
	return err
}
