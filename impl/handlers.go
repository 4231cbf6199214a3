package impl

import (
	"context"

	"github.com/oasgate/oasgate/gen"
)

// Handlers implements the operations of openapi.yaml, one method each. Requests that reach a method
// are authorized and valid. [token.FromContext] returns the principal.
type Handlers struct {
	Messages MessageStore
}

func (Handlers) GetPublic(
	context.Context, gen.GetPublicRequestObject,
) (gen.GetPublicResponseObject, error) {
	return gen.GetPublic200JSONResponse{
		Message: "Hello from a public endpoint! You don't need to be authenticated to see this.",
	}, nil
}

func (Handlers) GetPrivate(
	context.Context, gen.GetPrivateRequestObject,
) (gen.GetPrivateResponseObject, error) {
	return gen.GetPrivate200JSONResponse{
		Message: "Hello from a private endpoint! You need to be authenticated to see this.",
	}, nil
}

func (Handlers) GetPrivateScoped(
	context.Context, gen.GetPrivateScopedRequestObject,
) (gen.GetPrivateScopedResponseObject, error) {
	return gen.GetPrivateScoped200JSONResponse{
		Message: "Hello from a private endpoint! You need to be authenticated and have a scope " +
			"of read:messages to see this.",
	}, nil
}
