package llamaserver

// Variables of Vertex AI: where VertexMode is VertexPrediction, the server listens on
// VertexPort, 8080 where that is empty, whatever --port says (llama.cpp:
// tools/server/server-http.cpp).
const (
	VertexMode       = "AIP_MODE"
	VertexPrediction = "PREDICTION"
	VertexPort       = "AIP_HTTP_PORT"
)
