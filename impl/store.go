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
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/oasgate/oasgate/authz/server"
)

// keyLifetime is how long an Idempotency-Key is stored.
const keyLifetime = 24 * time.Hour

// StoreConfig configures a [Store]. Only URL has no default.
type StoreConfig struct {
	// URL is sqlite: and the path of a file, or a URL of PostgreSQL (see libpq) or of a database
	// that is compatible with it.
	URL string
	// Timeout limits each operation. Default 5 s.
	Timeout time.Duration
	Logger  *slog.Logger     // default slog.Default()
	Now     func() time.Time // default time.Now
}

// Store implements [MessageStore] with an SQL database. Its SQL works with SQLite and PostgreSQL;
// their differences are in [openSQLite] and [openPostgres]. It is safe for concurrent use, also by
// several processes with one database.
type Store struct {
	database
	timeout time.Duration
	now     func() time.Time
	stop    context.CancelFunc // of sweep
	stopped chan struct{}
}

// OpenStore opens the database and applies the migrations. It creates the file of SQLite if it does
// not exist.
func OpenStore(ctx context.Context, config StoreConfig) (*Store, error) {
	if err := checkURL(config.URL); err != nil {
		return nil, fmt.Errorf("the URL of the database is %q: %w", redacted(config.URL), err)
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
		return nil, fmt.Errorf("cannot open the database %s: %w", redacted(config.URL), err)
	}
	if err := db.migrate(ctx, config.Logger); err != nil {
		err = fmt.Errorf("cannot migrate the database %s: %w", redacted(config.URL), err)
		return nil, errors.Join(err, db.close())
	}
	s := &Store{
		database: db,
		timeout:  config.Timeout,
		now:      config.Now,
		stopped:  make(chan struct{}),
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	config.Logger.Info("opened the database", "database", redacted(config.URL))
	go s.sweepHourly(background, config.Logger)
	return s, nil
}

// Close closes the database. It must be called after the last request has ended.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return s.close()
}

// Ping returns an error if the database cannot be reached.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.read.PingContext(ctx)
}

// Pools returns the state of the connections to the database.
func (s *Store) Pools() map[string]server.Pool {
	state := func(db *sql.DB) server.Pool {
		stats := db.Stats()
		return server.Pool{
			MaxOpen: stats.MaxOpenConnections, InUse: stats.InUse, Idle: stats.Idle,
			Waits: stats.WaitCount, Waited: stats.WaitDuration,
		}
	}
	if s.read == s.write {
		return map[string]server.Pool{"messages": state(s.read)}
	}
	return map[string]server.Pool{
		"messages/read": state(s.read), "messages/write": state(s.write),
	}
}

func (s *Store) Create(ctx context.Context, owner Owner, text, key string) (m Message, err error) {
	ctx, done := s.limit(ctx, "creating a message", &err)
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
	if _, err := tx.ExecContext(ctx, `
		INSERT INTO messages (id, issuer, subject, text, version) VALUES ($1, $2, $3, $4, $5)`,
		m.ID, m.Owner.Issuer, m.Owner.Subject, m.Text, m.Version); err != nil {
		return Message{}, err
	}
	return m, tx.Commit()
}

// claim stores the owner's key for the message m, and returns the ID of m. If the key is in use, it
// returns the ID of the earlier message. Concurrent requests with the same key wait until the first
// has been committed.
func (s *Store) claim(
	ctx context.Context, tx *sql.Tx, key string, m Message,
) (id string, err error) {
	now := s.now()
	sum := sha256.Sum256([]byte(m.Text))
	body := hex.EncodeToString(sum[:])
	claimed, err := tx.ExecContext(ctx, `
		INSERT INTO idempotency_keys (issuer, subject, key, body, message, expires)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (issuer, subject, key) DO UPDATE
		SET body = excluded.body, message = excluded.message, expires = excluded.expires
		WHERE idempotency_keys.expires <= $7`,
		m.Owner.Issuer, m.Owner.Subject, key, body, m.ID, now.Add(keyLifetime).Unix(), now.Unix())
	if err != nil {
		return "", err
	}
	if n, err := claimed.RowsAffected(); err != nil || n == 1 {
		return m.ID, err
	}
	var earlier string
	err = tx.QueryRowContext(ctx, `
		SELECT body, message FROM idempotency_keys
		WHERE issuer = $1 AND subject = $2 AND key = $3`,
		m.Owner.Issuer, m.Owner.Subject, key).Scan(&earlier, &id)
	if err == nil && earlier != body {
		err = errKeyReused
	}
	return id, err
}

func (s *Store) List(
	ctx context.Context, filter Filter, before string, limit int,
) (found []Message, err error) {
	ctx, done := s.limit(ctx, "listing messages", &err)
	defer done()
	q := where(filter)
	if before != "" {
		q.and("id <", before)
	}
	q.args = append(q.args, limit)
	rows, err := s.read.QueryContext(ctx, fmt.Sprintf(`
		SELECT id, issuer, subject, text, version FROM messages
		WHERE %s ORDER BY id DESC LIMIT $%d`, q.sql, len(q.args)), q.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m Message
		err := rows.Scan(&m.ID, &m.Owner.Issuer, &m.Owner.Subject, &m.Text, &m.Version)
		if err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

func (s *Store) Get(ctx context.Context, filter Filter, id string) (m Message, err error) {
	ctx, done := s.limit(ctx, "getting a message", &err)
	defer done()
	return s.get(ctx, filter, id)
}

func (s *Store) get(ctx context.Context, filter Filter, id string) (m Message, err error) {
	q := where(filter)
	q.and("id =", id)
	err = s.read.QueryRowContext(ctx, `
		SELECT id, issuer, subject, text, version FROM messages WHERE `+q.sql, q.args...).
		Scan(&m.ID, &m.Owner.Issuer, &m.Owner.Subject, &m.Text, &m.Version)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNoMessage
	}
	return m, err
}

func (s *Store) Replace(
	ctx context.Context, owner Owner, id, text string, matches func(version int64) bool,
) (m Message, err error) {
	ctx, done := s.limit(ctx, "replacing a message", &err)
	defer done()
	err = s.change(ctx, owner, id, matches, func(found Message) (sql.Result, error) {
		m = found
		m.Text, m.Version = text, found.Version+1
		return s.write.ExecContext(ctx, `
			UPDATE messages SET text = $1, version = $2 WHERE id = $3 AND version = $4`,
			m.Text, m.Version, id, found.Version)
	})
	return m, err
}

func (s *Store) Delete(
	ctx context.Context, owner Owner, id string, matches func(version int64) bool,
) (err error) {
	ctx, done := s.limit(ctx, "deleting a message", &err)
	defer done()
	return s.change(ctx, owner, id, matches, func(found Message) (sql.Result, error) {
		return s.write.ExecContext(ctx,
			`DELETE FROM messages WHERE id = $1 AND version = $2`, id, found.Version)
	})
}

// change executes a statement for a message whose version matches. The statement must have the
// version in its condition, so that it does nothing after a concurrent change. Then change tries
// again.
func (s *Store) change(
	ctx context.Context, owner Owner, id string, matches func(version int64) bool,
	statement func(found Message) (sql.Result, error),
) error {
	for {
		found, err := s.get(ctx, Filter{Owner: owner}, id)
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

// condition is the condition of a query with its arguments.
type condition struct {
	sql  string
	args []any
}

// where returns the condition of a filter.
func where(filter Filter) condition {
	q := condition{sql: "TRUE"}
	if !filter.All {
		q.and("issuer =", filter.Owner.Issuer)
		q.and("subject =", filter.Owner.Subject)
	}
	return q
}

func (q *condition) and(comparison string, arg any) {
	q.args = append(q.args, arg)
	q.sql += fmt.Sprintf(" AND %s $%d", comparison, len(q.args))
}

// limit limits the time of an operation. The returned function must be deferred. It adds the name
// of the operation to the error, and [errUnavailable] if the database is at fault.
func (s *Store) limit(
	ctx context.Context, operation string, err *error,
) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	ctx, span := startSpan(ctx, operation)
	return ctx, func() {
		defer cancel()
		defer span.End()
		switch {
		case *err == nil, errors.As(*err, new(outcome)): // not a failure
		case ctx.Err() != nil, s.isUnavailable(*err):
			*err = fmt.Errorf("%s: %w: %w", operation, errUnavailable, *err)
			span.SetStatus(codes.Error, "database unavailable")
		default:
			*err = fmt.Errorf("%s: %w", operation, *err)
			span.SetStatus(codes.Error, "")
		}
	}
}

// startSpan begins a span as a child of that of the request. Without telemetry it does nothing.
func startSpan(ctx context.Context, operation string) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer("impl").Start(ctx, operation,
		trace.WithSpanKind(trace.SpanKindClient))
}

// sweepHourly deletes expired idempotency keys every hour.
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
			log.Warn("cannot delete expired idempotency keys", "cause", err)
		}
	}
}

func (s *Store) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := s.write.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE expires <= $1`,
		s.now().Unix())
	return err
}
