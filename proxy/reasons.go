package proxy

// Why a request is cold; a fixed set, since they label metrics.
const (
	coldUnavailable = "backend cannot share"
	coldNoTenant    = "no tenant"
	coldRefused     = "key refused"
	coldTokens      = "tokens unknown"
	coldShort       = "short prompt"
	coldLong        = "prompt too long"
	coldIndex       = "index unavailable"
	coldNothing     = "nothing similar"
	coldDissimilar  = "below minimum similarity"
	coldNoGain      = "no gain"
	coldLate        = "time budget"
	coldBusy        = "no slot free"
	coldReference   = "reference lost"
	coldFill        = "injection failed"
	coldCells       = "no free cells"
	coldClientGone  = "client gone"
	coldFault       = "fault in sharing"
	coldExactOnly   = "no exact prefix"
	coldScattered   = "slot chosen by backend"
)

// Reasons why a request is not shared that show in its body or headers.
const (
	offByHeader   = "off by header"
	offByRoute    = "route off"
	offEncoding   = "body not decodable"
	offJSON       = "body is not JSON"
	offDeep       = "body nested too deep"
	offMembers    = "too many keys"
	offTwice      = "key given twice"
	offList       = "list of prompts"
	offMultimodal = "multimodal"
	offSeveral    = "several answers"
	offLoRA       = "lora in request"
	offNoCache    = "cache_prompt off"
	offPinned     = "slot pinned by client"
	offForm       = "prompt form not understood"
)
