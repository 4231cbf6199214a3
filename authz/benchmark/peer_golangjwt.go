package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	echojwt "github.com/labstack/echo-jwt/v4"
	"github.com/labstack/echo/v4"
	"github.com/ogen-go/ogen/ogenerrors"

	"github.com/oasgate/oasgate/authz/benchmark/peers/ogen"
)

type claims struct {
	Scope string `json:"scope"`
	jwt.RegisteredClaims
}

// newParse verifies with golang-jwt and the key set that keyfunc keeps.
func newParse(issuer string) (func(token string) (*jwt.Token, error), error) {
	url := issuer + ".well-known/jwks.json"
	keys, err := keyfunc.NewDefaultCtx(context.Background(), []string{url})
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(issuer),
		jwt.WithAudience(audience), jwt.WithExpirationRequired())
	return func(token string) (*jwt.Token, error) {
		return parser.ParseWithClaims(token, &claims{}, keys.Keyfunc)
	}, nil
}

func echoJWT(issuer string) (http.Handler, error) {
	parse, err := newParse(issuer)
	if err != nil {
		return nil, err
	}
	e := newEcho()
	e.Use(echojwt.WithConfig(echojwt.Config{
		ParseTokenFunc: func(_ echo.Context, token string) (any, error) { return parse(token) },
	}), func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if !hasScope(c.Get("user").(*jwt.Token).Claims.(*claims).Scope, scope) {
				return echo.ErrForbidden
			}
			return next(c)
		}
	})
	e.GET(path, echoMessage)
	return e, nil
}

func ogenServer(issuer string) (http.Handler, error) {
	parse, err := newParse(issuer)
	if err != nil {
		return nil, err
	}
	// ogen answers every error of security with 401 unless it is told otherwise.
	return ogen.NewServer(ogenHandler{}, ogenSecurity{parse}, ogen.WithErrorHandler(
		func(ctx context.Context, w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, errScope) {
				http.Error(w, "insufficient scope", http.StatusForbidden)
				return
			}
			ogenerrors.DefaultErrorHandler(ctx, w, r, err)
		}))
}

var errScope = errors.New("insufficient scope")

type ogenHandler struct{}

func (ogenHandler) GetPrivateScoped(context.Context) (*ogen.Message, error) {
	return &ogen.Message{Message: text}, nil
}

type ogenSecurity struct {
	parse func(string) (*jwt.Token, error)
}

func (s ogenSecurity) HandleBearerAuth(
	ctx context.Context, _ ogen.OperationName, t ogen.BearerAuth,
) (context.Context, error) {
	token, err := s.parse(t.Token)
	if err != nil {
		return ctx, err
	}
	for _, each := range t.Scopes {
		if !hasScope(token.Claims.(*claims).Scope, each) {
			return ctx, errScope
		}
	}
	return ctx, nil
}
