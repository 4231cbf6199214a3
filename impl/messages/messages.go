// Package messages complements the generated Go client of this API:
//
//	source, err := client.New(ctx, client.Config{ … })     // authz/client: tokens and retries
//	caller, err := source.Client(url)
//	api, err := apiclient.NewClientWithResponses(url, apiclient.WithHTTPClient(caller))
//	for message, err := range messages.All(ctx, api, nil) { … }
//
// None of these packages depends on a server.
package messages

import (
	"context"
	"iter"

	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/gen/apiclient"
)

const problemTypes = "https://github.com/oasgate/oasgate/blob/main/impl/PROBLEMS.md#"

// The problem types of this API, which impl/PROBLEMS.md describes. Those of package authz are in
// authz/client.
const (
	PreconditionFailed   client.ProblemType = problemTypes + "precondition-failed"
	IdempotencyKeyReused client.ProblemType = problemTypes + "idempotency-key-reused"
)

// All iterates over all messages that the caller may read, newest first. params can be nil. A
// refusal is an error of type [*client.Problem].
func All(
	ctx context.Context, api apiclient.ClientWithResponsesInterface,
	params *apiclient.ListMessagesParams,
) iter.Seq2[apiclient.Message, error] {
	asked := apiclient.ListMessagesParams{}
	if params != nil {
		asked = *params
	}
	return client.Pages(func(cursor string) ([]apiclient.Message, string, error) {
		if cursor != "" {
			asked.Cursor = &cursor
		}
		page, err := api.ListMessagesWithResponse(ctx, &asked)
		if err == nil {
			err = client.ProblemOf(page.HTTPResponse, page.Body)
		}
		if err != nil {
			return nil, "", err
		}
		next := ""
		if page.JSON200.Next != nil {
			next = *page.JSON200.Next
		}
		return page.JSON200.Messages, next, nil
	})
}
