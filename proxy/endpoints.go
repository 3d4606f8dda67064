package proxy

// Endpoint is one of the request forms that carry a prompt.
type Endpoint string

// The generation endpoints of llama-server.
const (
	EndpointChat        Endpoint = "chat"        // OpenAI chat completions
	EndpointCompletions Endpoint = "completions" // OpenAI completions
	EndpointCompletion  Endpoint = "completion"  // llama-server's own
	EndpointResponses   Endpoint = "responses"   // OpenAI responses
	EndpointMessages    Endpoint = "messages"    // Anthropic messages
	EndpointInfill      Endpoint = "infill"      // fill in the middle
)

// endpoints are llama-server's routes, aliases included.
var endpoints = map[string]Endpoint{
	"/v1/chat/completions": EndpointChat,
	"/chat/completions":    EndpointChat,
	"/api/chat":            EndpointChat,
	"/v1/completions":      EndpointCompletions,
	"/completions":         EndpointCompletion,
	"/completion":          EndpointCompletion,
	"/v1/responses":        EndpointResponses,
	"/responses":           EndpointResponses,
	"/v1/messages":         EndpointMessages,
	"/infill":              EndpointInfill,
}
