package impl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
)

// Message is a text and whose it is.
type Message struct {
	ID      string // a UUIDv7 (RFC 9562 §5.7): later messages have greater ones
	Owner   Owner
	Text    string
	Version int64 // one more with each change
}

// Created returns when the message was created, as its id says: to the millisecond.
func (m Message) Created() time.Time {
	id := uuid.MustParse(m.ID) // the store's own
	return time.Unix(id.Time().UnixTime()).Truncate(time.Millisecond).UTC()
}

// Owner is whose a message is. A subject is unique only together with its issuer (RFC 7519 §4.1.2).
type Owner struct{ Issuer, Subject string }

// Whose says whose messages are meant. The zero value is nobody's.
type Whose struct {
	Owner     Owner
	Everybody bool
}

// Messages is where messages are kept. What it acknowledges is kept for good. A message that is not one of those meant
// does not exist for the caller.
type Messages interface {
	// Create creates a message. If key is not "" and this owner has used it in the last [keysKept], it creates
	// nothing: it returns what it created then, as it was, or [errKeyReused] if that was another text.
	Create(ctx context.Context, owner Owner, text, key string) (Message, error)
	// List returns the newest messages that are older than the one of the id before, or the newest of all if that is "".
	List(ctx context.Context, whose Whose, before string, limit int) ([]Message, error)
	// Get returns a message, or [errNoMessage].
	Get(ctx context.Context, whose Whose, id string) (Message, error)
	// Replace replaces the text of a message if its version matches, in one step, and returns the message as it is now;
	// else it returns [errChanged] or [errNoMessage].
	Replace(ctx context.Context, owner Owner, id, text string, matches func(version int64) bool) (Message, error)
	// Delete deletes a message, on the same terms.
	Delete(ctx context.Context, owner Owner, id string, matches func(version int64) bool) error
}

// What [Messages] may answer. Any other error is a fault of the server.
var (
	errNoMessage   = errors.New("there is no such message")
	errChanged     = errors.New("the message is of another version")
	errKeyReused   = errors.New("the idempotency key was used for another text")
	errUnavailable = errors.New("the database is not available")
)

func (h Handlers) CreateMessage(ctx context.Context, r gen.CreateMessageRequestObject) (gen.CreateMessageResponseObject, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	m, err := h.Messages.Create(ctx, who.Owner, r.Body.Text, deref(r.Params.IdempotencyKey))
	switch {
	case errors.Is(err, errKeyReused):
		refusal := problem(http.StatusUnprocessableEntity, "This Idempotency-Key came with another text before. Choose a new one for a new message.")
		return gen.CreateMessage422ApplicationProblemPlusJSONResponse{
			IdempotencyKeyReusedApplicationProblemPlusJSONResponse: gen.IdempotencyKeyReusedApplicationProblemPlusJSONResponse(refusal),
		}, nil
	case err != nil:
		return nil, explained(err)
	}
	return gen.CreateMessage201JSONResponse{
		Body:    shown(m),
		Headers: gen.CreateMessage201ResponseHeaders{ETag: etag(m.Version), Location: messagesPath + "/" + m.ID},
	}, nil
}

func (h Handlers) ListMessages(ctx context.Context, r gen.ListMessagesRequestObject) (gen.ListMessagesResponseObject, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	before, err := readCursor(deref(r.Params.Cursor))
	if err != nil {
		return nil, &authz.Error{Kind: authz.InvalidParameter, Detail: "The query parameter cursor is not one that this API has given.", Err: err}
	}
	limit := deref(r.Params.Limit) // the document's default, where the client says nothing
	found, err := h.Messages.List(ctx, who, before, limit+1)
	if err != nil {
		return nil, explained(err)
	}
	var answer gen.ListMessages200JSONResponse
	if len(found) > limit {
		found = found[:limit]
		next := writeCursor(found[limit-1].ID)
		link := fmt.Sprintf(`<%s?cursor=%s&limit=%d>; rel="next"`, messagesPath, next, limit)
		answer.Body.Next, answer.Headers.Link = &next, &link
	}
	answer.Body.Messages = make([]gen.Message, len(found)) // none are [], not null
	for i, m := range found {
		answer.Body.Messages[i] = shown(m)
	}
	return answer, nil
}

func (h Handlers) GetMessage(ctx context.Context, r gen.GetMessageRequestObject) (gen.GetMessageResponseObject, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	m, err := h.Messages.Get(ctx, who, r.Id)
	if err != nil {
		return nil, explained(err)
	}
	if tags := r.Params.IfNoneMatch; tags != nil && matchesWeakly(*tags, m.Version) {
		return gen.GetMessage304Response{Headers: gen.GetMessage304ResponseHeaders{ETag: etag(m.Version)}}, nil
	}
	return gen.GetMessage200JSONResponse{Body: shown(m), Headers: gen.GetMessage200ResponseHeaders{ETag: etag(m.Version)}}, nil
}

func (h Handlers) ReplaceMessage(ctx context.Context, r gen.ReplaceMessageRequestObject) (gen.ReplaceMessageResponseObject, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if r.Params.IfMatch == nil {
		return gen.ReplaceMessage428ApplicationProblemPlusJSONResponse{PreconditionRequiredApplicationProblemPlusJSONResponse: blind()}, nil
	}
	m, err := h.Messages.Replace(ctx, who.Owner, r.Id, r.Body.Text, matches(*r.Params.IfMatch))
	switch {
	case errors.Is(err, errChanged):
		return gen.ReplaceMessage412ApplicationProblemPlusJSONResponse{PreconditionFailedApplicationProblemPlusJSONResponse: changed()}, nil
	case err != nil:
		return nil, explained(err)
	}
	return gen.ReplaceMessage200JSONResponse{Body: shown(m), Headers: gen.ReplaceMessage200ResponseHeaders{ETag: etag(m.Version)}}, nil
}

func (h Handlers) DeleteMessage(ctx context.Context, r gen.DeleteMessageRequestObject) (gen.DeleteMessageResponseObject, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if r.Params.IfMatch == nil {
		return gen.DeleteMessage428ApplicationProblemPlusJSONResponse{PreconditionRequiredApplicationProblemPlusJSONResponse: blind()}, nil
	}
	switch err := h.Messages.Delete(ctx, who.Owner, r.Id, matches(*r.Params.IfMatch)); {
	case errors.Is(err, errChanged):
		return gen.DeleteMessage412ApplicationProblemPlusJSONResponse{PreconditionFailedApplicationProblemPlusJSONResponse: changed()}, nil
	case err != nil:
		return nil, explained(err)
	}
	return gen.DeleteMessage204Response{}, nil
}

const messagesPath = "/api/messages"

// caller returns who asks, and whose messages they may read. The document lets in whoever has one scope or the other;
// which of the two it was decides what there is to see. Writing is for the owner alone.
func caller(ctx context.Context) (Whose, error) {
	p, ok := token.FromContext(ctx)
	if !ok {
		return Whose{}, errors.New("nobody knows who asks: does openapi.yaml let somebody in here without a token?")
	}
	if p.Subject() == "" { // of an issuer whose tokens need not name one: all of those would be one owner
		return Whose{}, &authz.Error{Kind: authz.Denied, Detail: "The access token names no subject, and messages belong to one."}
	}
	return Whose{Owner: Owner{p.Issuer(), p.Subject()}, Everybody: p.HasScope("read:messages:all")}, nil
}

// shown is a message as the document has it.
func shown(m Message) gen.Message {
	return gen.Message{Id: m.ID, Text: m.Text, Author: gen.Author{Issuer: m.Owner.Issuer, Subject: m.Owner.Subject}, Created: m.Created()}
}

// explained says what an error of the store is to the client. One that it does not know is a 500.
func explained(err error) error {
	switch {
	case errors.Is(err, errNoMessage): // also another's: a 403 would say that it exists (OWASP API1:2023)
		return &authz.Error{Kind: authz.NotFound, Detail: "There is no such message."}
	case errors.Is(err, errUnavailable):
		return &authz.Error{Kind: authz.Unavailable, Detail: "The messages cannot be reached now. Try again later.", Err: err}
	}
	return err
}

func problem(status int, detail string) gen.Problem {
	return gen.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: &detail} // RFC 9457 §4.2.1
}

func changed() gen.PreconditionFailedApplicationProblemPlusJSONResponse {
	return gen.PreconditionFailedApplicationProblemPlusJSONResponse(
		problem(http.StatusPreconditionFailed, "The message has changed since. Get it again for its ETag."))
}

func blind() gen.PreconditionRequiredApplicationProblemPlusJSONResponse {
	return gen.PreconditionRequiredApplicationProblemPlusJSONResponse(
		problem(http.StatusPreconditionRequired, "Send the ETag of the message that you have seen as If-Match."))
}

// etag is strong: the same tag is the same answer, byte for byte (RFC 9110 §8.8.1).
func etag(version int64) string { return strconv.Quote(strconv.FormatInt(version, 10)) }

var entityTag = regexp.MustCompile(`(?:W/)?"[^"]*"`)

// matches evaluates If-Match. Its comparison is strong: a weak tag equals none (RFC 9110 §13.1.1, §8.8.3.2).
func matches(tags string) func(version int64) bool {
	return func(version int64) bool {
		return tags == "*" || slices.Contains(entityTag.FindAllString(tags, -1), etag(version))
	}
}

// matchesWeakly evaluates If-None-Match, whose comparison is weak (RFC 9110 §13.1.2).
func matchesWeakly(tags string, version int64) bool {
	return matches(tags)(version) || slices.Contains(entityTag.FindAllString(tags, -1), "W/"+etag(version))
}

// writeCursor makes the cursor that goes on after the message of this id: the id and a checksum. The checksum protects
// nothing, for a cursor grants nothing: it is there so that one which was cut short or altered is refused, rather than
// skips messages.
func writeCursor(id string) string {
	at := uuid.MustParse(id) // the store's own
	sum := sha256.Sum256(at[:])
	return base64.RawURLEncoding.EncodeToString(append(at[:], sum[:4]...))
}

// readCursor returns the id in a cursor, or "" for no cursor.
func readCursor(cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) != 20 {
		return "", errors.New("the cursor is malformed")
	}
	at := uuid.UUID(raw[:16])
	if sum := sha256.Sum256(at[:]); !bytes.Equal(sum[:4], raw[16:]) {
		return "", errors.New("the cursor's checksum is wrong")
	}
	return at.String(), nil
}

// deref returns what an optional parameter says, or the zero value.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
