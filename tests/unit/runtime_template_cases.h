/*
 * Chat templates as model files carry them, and the template language bit by bit.  What each gives is what jinja2 3.1 gives for it with
 * trim_blocks and lstrip_blocks (as transformers renders chat templates), over the conversations of runtime_template.c.
 */
static const char T0[] = /* SmolLM2 */
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>"
    "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif"
    " %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %"
    "}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
static const char T1[] = /* ChatML */
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im"
    "_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif "
    "%}";
static const char T2[] = /* Llama 3 */
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header"
    "_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% "
    "if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% "
    "if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";
static const char T3[] = /* Gemma 2 */
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported"
    "') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 ="
    "= 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{"
    "% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = m"
    "essage['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_"
    "of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}";
static const char T4[] = /* Gemma 3 */
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is st"
    "ring -%}\n        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}\n    {%- else -%"
    "}\n        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}\n    {%- end"
    "if -%}\n    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = "
    "\"\" -%}\n    {%- set loop_messages = messages -%}\n{%- endif -%}\n{%- for message in loop_messages "
    "-%}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n        {{ raise_exceptio"
    "n(\"Conversation roles must alternate user/assistant/user/assistant/...\") }}\n    {%- endif -%}\n  "
    "  {%- if (message['role'] == 'assistant') -%}\n        {%- set role = \"model\" -%}\n    {%- else -%"
    "}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n    {{ '<start_of_turn>' + role + "
    "'\\n' + (first_user_prefix if loop.first else \"\") }}\n    {%- if message['content'] is string -%}"
    "\n        {{ message['content'] | trim }}\n    {%- elif message['content'] is iterable -%}\n        "
    "{%- for item in message['content'] -%}\n            {%- if item['type'] == 'image' -%}\n            "
    "    {{ '<start_of_image>' }}\n            {%- elif item['type'] == 'text' -%}\n                {{ it"
    "em['text'] | trim }}\n            {%- endif -%}\n        {%- endfor -%}\n    {%- else -%}\n        {"
    "{ raise_exception(\"Invalid content type\") }}\n    {%- endif -%}\n    {{ '<end_of_turn>\\n' }}\n{%-"
    " endfor -%}\n{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\\n'}}\n{%- endif -%}\n";
static const char T5[] = /* Qwen 2.5 */
    "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- if messages[0]['role'] == 'system' %}\n"
    "        {{- messages[0]['content'] }}\n    {%- else %}\n        {{- 'You are Qwen, created by Alibab"
    "a Cloud. You are a helpful assistant.' }}\n    {%- endif %}\n    {{- \"\\n\\n# Tools\\n\\nYou may ca"
    "ll one or more functions to assist with the user query.\\n\\nYou are provided with function signatur"
    "es within <tools></tools> XML tags:\\n<tools>\" }}\n    {%- for tool in tools %}\n        {{- \"\\n"
    "\" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n    {{- \"\\n</tools>\\n\\nFor each function"
    " call, return a json object with function name and arguments within <tool_call></tool_call> XML tags"
    ":\\n<tool_call>\\n{\\\"name\\\": <function-name>, \\\"arguments\\\": <args-json-object>}\\n</tool_ca"
    "ll><|im_end|>\\n\" }}\n{%- else %}\n    {%- if messages[0]['role'] == 'system' %}\n        {{- '<|im"
    "_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n    {%- else %}\n        {{- '<|im"
    "_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' "
    "}}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n    {%- if (message.role == \"us"
    "er\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not m"
    "essage.tool_calls) %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_e"
    "nd|>' + '\\n' }}\n    {%- elif message.role == \"assistant\" %}\n        {{- '<|im_start|>' + messag"
    "e.role }}\n        {%- if message.content %}\n            {{- '\\n' + message.content }}\n        {%"
    "- endif %}\n        {%- for tool_call in message.tool_calls %}\n            {%- if tool_call.functio"
    "n is defined %}\n                {%- set tool_call = tool_call.function %}\n            {%- endif %}"
    "\n            {{- '\\n<tool_call>\\n{\"name\": \"' }}\n            {{- tool_call.name }}\n          "
    "  {{- '\", \"arguments\": ' }}\n            {{- tool_call.arguments | tojson }}\n            {{- '}"
    "\\n</tool_call>' }}\n        {%- endfor %}\n        {{- '<|im_end|>\\n' }}\n    {%- elif message.rol"
    "e == \"tool\" %}\n        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != \"tool\") "
    "%}\n            {{- '<|im_start|>user' }}\n        {%- endif %}\n        {{- '\\n<tool_response>\\n'"
    " }}\n        {{- message.content }}\n        {{- '\\n</tool_response>' }}\n        {%- if loop.last "
    "or (messages[loop.index0 + 1].role != \"tool\") %}\n            {{- '<|im_end|>\\n' }}\n        {%- "
    "endif %}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>ass"
    "istant\\n' }}\n{%- endif %}\n";
static const char T6[] = /* one tag a line */
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['conte"
    "nt'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content']"
    " + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['conten"
    "t'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}"
    "\n{% endif %}\n{% endfor %}\n";
static const struct {
    const char *name, *tmpl;
    bool has_system, generate;
    const char *want; /* NULL: the template refuses */
} models[] = {
    {"SmolLM2", T0, true, true, 
     "<|im_start|>system\nBe brief.  <|im_end|>\n<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_sta"
     "rt|>assistant\na \"b\"<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
    {"SmolLM2", T0, true, false, 
     "<|im_start|>system\nBe brief.  <|im_end|>\n<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_sta"
     "rt|>assistant\na \"b\"<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"},
    {"SmolLM2", T0, false, true, 
     "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
     "<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_start|>assistant\na \"b\"<|im_end|>\n<|im_star"
     "t|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
    {"SmolLM2", T0, false, false, 
     "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
     "<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_start|>assistant\na \"b\"<|im_end|>\n<|im_star"
     "t|>user\nc<|im_end|>\n"},
    {"ChatML", T1, true, true, 
     "<|im_start|>system\nBe brief.  <|im_end|>\n<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_sta"
     "rt|>assistant\na \"b\"<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
    {"ChatML", T1, false, true, 
     "<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_start|>assistant\na \"b\"<|im_end|>\n<|im_star"
     "t|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
    {"Llama 3", T2, true, true, 
     "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_hea"
     "der_id|>\n\nHi \342\230\203<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na \"b\"<|eot_i"
     "d|><|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|><|start_header_id|>assistant<|end_header_i"
     "d|>\n\n"},
    {"Llama 3", T2, false, true, 
     "<s><|start_header_id|>user<|end_header_id|>\n\nHi \342\230\203<|eot_id|><|start_header_id|>assistant"
     "<|end_header_id|>\n\na \"b\"<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|><|start"
     "_header_id|>assistant<|end_header_id|>\n\n"},
    {"Gemma 2", T3, true, true, NULL},
    {"Gemma 2", T3, false, true, 
     "<s><start_of_turn>user\nHi \342\230\203<end_of_turn>\n<start_of_turn>model\na \"b\"<end_of_turn>\n<s"
     "tart_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"},
    {"Gemma 3", T4, true, true, 
     "<s><start_of_turn>user\nBe brief.  \n\nHi \342\230\203<end_of_turn>\n<start_of_turn>model\na \"b\"<e"
     "nd_of_turn>\n<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"},
    {"Gemma 3", T4, false, true, 
     "<s><start_of_turn>user\nHi \342\230\203<end_of_turn>\n<start_of_turn>model\na \"b\"<end_of_turn>\n<s"
     "tart_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"},
    {"Qwen 2.5", T5, true, true, 
     "<|im_start|>system\nBe brief.  <|im_end|>\n<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_sta"
     "rt|>assistant\na \"b\"<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
    {"Qwen 2.5", T5, false, true, 
     "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
     "<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_start|>assistant\na \"b\"<|im_end|>\n<|im_star"
     "t|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
    {"one tag a line", T6, true, true, 
     "<|system|>\nBe brief.  </s>\n<|user|>\n Hi \342\230\203 \n</s>\n<|assistant|>\na \"b\"</s>\n<|user|>"
     "\nc</s>\n<|assistant|>\n"},
    {"one tag a line", T6, false, true, 
     "<|user|>\n Hi \342\230\203 \n</s>\n<|assistant|>\na \"b\"</s>\n<|user|>\nc</s>\n<|assistant|>\n"},
};
static const struct {
    const char *tmpl, *want; /* NULL: an error */
} language[] = {
    {"{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 'a' "
     "* 3 }} {{ 1.5 + 1 }} {{ 0.1 + 0.2 }}",
     "7 3 -4 2 -2 3.5 2.0 aaa 2.5 0.30000000000000004"},
    {"{{ 'a' ~ 1 ~ none ~ true ~ nothing }}",
     "a1NoneTrue"},
    {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ [1,2] == [1,2] }} "
     "{{ {'a': 1} == {'a': 1} }}",
     "True False True True True True True"},
    {"{{ 'a' in 'cat' }} {{ 'x' not in 'cat' }} {{ 1 in [1,2] }} {{ 'role' in messages[0] }} {{ not 'z' in 'cat' }}",
     "True True True True True"},
    {"{{ messages[-1].role }} {{ messages[99] is defined }} {{ messages[0].foo is defined }} {{ messages[0"
     "]['foo'] is not defined }} {{ foo }}",
     "user False False True "},
    {"{{ foo.bar }}", NULL},
    {"{{ foo['bar'] }}", NULL},
    {"{{ none.bar is defined }}",
     "False"},
    {"{{ 'x' if false }} {{ 'x' if messages else 'y' }} {{ ('a' if 0 else 'b') ~ 'c' }} {{ 'a' if 0 else '"
     "b' if 0 else 'c' }}",
     " x bc c"},
    {"{{ messages | map(attribute='role') | join(', ') }} {{ messages | map('length') | list | length }}",
     "system, user, assistant, user 4"},
    {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('rol"
     "e', '==', 'user') | list | length }} {{ messages | selectattr('foo') | list | length }}",
     "2 2 0"},
    {"{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ {'a': [], 'b': {}, 'c': none, 'd': [1, "
     "2.5, true]} | tojson(indent=4) }}",
     "[{\"role\": \"system\", \"content\": \"Be brief.  \"}, {\"role\": \"user\", \"content\": \" Hi \342"
     "\230\203 \\n\"}, {\"role\": \"assistant\", \"content\": \"a \\\"b\\\"\"}, {\"role\": \"user\", \"con"
     "tent\": \"c\"}] [\n  {\n    \"role\": \"system\",\n    \"content\": \"Be brief.  \"\n  },\n  {\n    "
     "\"role\": \"user\",\n    \"content\": \" Hi \342\230\203 \\n\"\n  },\n  {\n    \"role\": \"assistant"
     "\",\n    \"content\": \"a \\\"b\\\"\"\n  },\n  {\n    \"role\": \"user\",\n    \"content\": \"c\"\n "
     " }\n] {\n    \"a\": [],\n    \"b\": {},\n    \"c\": null,\n    \"d\": [\n        1,\n        2.5,\n "
     "       true\n    ]\n}"},
    {"{{ 'Hello World'[1:4] }} {{ 'Hello'[::-1] }} {{ 'Hello'[-3:] }} {{ 'Hello'[:-1] }} {{ 'h\303\251llo'"
     "[1] }} {{ [1,2,3,4,5][4:0:-2] | join('-') }} {{ [1,2,3][5:] | length }} {{ 'abc'[::2] }} {{ [1,2,3]["
     ":100:2]|join }}",
     "ell olleH llo Hell \303\251 5-3 0 ac 13"},
    {"{{ [1,2,3][-100:100] | join }} {{ [1,2,3][100::-1] | join }} {{ [1,2,3][-100::-1] | join }} {{ [1,2,"
     "3][:-100:-1] | join }}",
     "123 321  321"},
    {"{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcab'.lstrip('ab') }}|{{ 'a,b,c'.split(',') | joi"
     "n('/') }}|{{ 'a,b,c'.split(',', 1) | last }}|{{ 'ab'.replace('a', 'xx') }}|{{ 'ab'.startswith('a') }"
     "}|{{ 'hello world'.title() }}|{{ 'hELLO'|capitalize }}",
     "x|a|cab|a/b/c|b,c|xxb|True|Hello World|Hello"},
    {"{{ foo | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ none | default('e'"
     ", boolean=true) }}",
     "d  d e"},
    {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1, 'b': 2} %"
     "}{{ k }}{% endfor %}",
     "a=1;b=2;ab"},
    {"{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% else "
     "%}none{% endfor %}",
     "1/2False2/2True"},
    {"{% for x in [] %}a{% else %}b{% endfor %}{% for x in nothing %}a{% else %}b{% endfor %}",
     "bb"},
    {"{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %"
     "}{{ i }}{% endfor %}",
     "0134"},
    {"{% set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + loop.index %}{% endfor %}{{ ns.x }}",
     "10"},
    {"{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x"
     " = 3 %}{% endif %}{{ x }}",
     "222213"},
    {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c | length }}{% for a, b in [[1,2],[3,4]] %}"
     "{{ a + b }}{% endfor %}",
     "12237"},
    {"{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 'a' is string }} {{ 1 is number }} {{ mes"
     "sages is iterable }} {{ messages[0] is mapping }} {{ none is none }} {{ 1 is none }} {{ 5 is eq 5 }}"
     " {{ 'a' is in ['a'] }} {{ true is true }} {{ raise_exception is defined }} {{ foo is string }} {{ 'x"
     "' is not none and 1 is defined }}",
     "True True True True True True True True False True True True True False True"},
    {"{{ raise_exception('boo') }}", NULL},
    {"{{ 1/0 }}", NULL},
    {"{{ 'a' + 1 }}", NULL},
    {"{{ 'a' + foo }}", NULL},
    {"{{ \"a\\tb\\x41\\u00e9\\\\\\\"\\'\" }}",
     "a\tbA\303\251\\\"'"},
    {"{{ 'a' ", NULL},
    {"{% if %}", NULL},
    {"{% for x in y %}", NULL},
    {"{{ foo() }}", NULL},
    {"{% unknown %}", NULL},
    {"{{ 1 if }}", NULL},
    {"{{ [1,2,][0] }} {{ (1,2)|length }} {{ (1,)|length }} {{ ()|length }} {{ (3) }} {{ {}|length }}",
     "1 2 1 0 3 0"},
    {"{{ not true or true }} {{ not (true or true) }} {{ 1 and 0 or 'z' }} {{ '' or none }} {{ -3 + 5 }} {"
     "{ - 3|string|length }} {{ 2 - -2 }}",
     "True False z None 2 2 4"},
    {"{{ '7' | int + 1 }} {{ 'x' | int }} {{ 3 | string ~ 'a' }} {{ [3,1] | first }} {{ [] | first is defi"
     "ned }} {{ 'abc' | last }} {{ 'abc' | reverse }} {{ [1,2] | reverse | join }}",
     "8 0 3a 3 False c cba 21"},
    {"{{ loop }}",
     ""},
    {"{{ messages[0].get('role') }} {{ messages[0].get('x', 'd') }} {{ messages[0].get('x') }} {{ messages"
     "[0].keys() | join(',') }} {{ messages[0] | items | list | length }} {{ dict(a=1).a }}",
     "system d None role,content 2 1"},
    {"{{ '\\u00a0x\\u3000' | trim }}| {{ ' \\n x' | trim | length }}",
     "x| 1"},
    {"a{% if true %}\n  b\n  {% endif %}\nc\n",
     "a  b\nc"},
    {"{{ '}}' }}{{ {'a': {'b': 1}}['a']['b'] }}{{ '%}' }}",
     "}}1%}"},
    {"{{ messages | length - 1 }} {{ messages|length|string + 'x' }} {{ 1 ~ 2 + 3 }} {{ 2 * 3 ~ 4 }}", NULL},
    {"{{ messages | list | length == 3 }} {{ namespace(a=1).a }} {{ 'a' == 'a' and 'b' or 'c' }}",
     "False 1 b"},
    {"{{ 3 > 2 and 2 >= 2 and 1 <= 1 and 1 != 2 }} {{ true and false }} {{ 10 % 4 }} {{ 1 == none }} {{ no"
     "ne == none }} {{ foo == bar }} {{ foo == none }}",
     "True False 2 False True True False"},
    {"{% set x = 'abc' %}{{ x[0] }}{{ x[-1] }}{{ x[9] }}{{ x | length }}{{ 'n\303\251' | length }}",
     "ac32"},
    {"{% if messages[0]['role'] == 'user' -%}   x   {%- else -%} y {%- endif %} z",
     "y z"},
    {"{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem is defin"
     "ed }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.index0 }}{% endfor %}",
     "True430systemTrue321userTrue212assistantFalse103"},
    {"{% set content %}a{{ 1 }}b{% endset %}{{ content }}{{ content | length }}",
     "a1b3"},
    {"{% for m in messages %}{% for n in messages %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
     "12341123421234312344"},
    {"  {# c #}  \na\n   {% if true %}  \n   b {% if true %} c {%+ if true %} d\n     {%- endif %} e {{- '"
     "x' -}}   f\n  {{ 'y' }}  \n   {%+ endif +%}\n  g {% endif %}h\n   {% set x %}  in set\n   {{ 'q' }} "
     "{% endset %}\n[{{ x }}]\r\nline\r\n{#- z -#}\n  tail\n   ",
     "  \na\n  \n   b  c  d exf\n  y  \n   \n  g h\n[  in set\n   q ]\nlinetail\n   "},
    {"{% macro m(a, b='z', c=none) %}<{{ a }}|{{ b }}|{{ c is none }}>{% for i in range(3) %}{{ loop.index"
     " }}{% endfor %}{% endmacro %}{{ m('1') }}{{ m('1', c=2, b=messages|length) }}{% set y = m(1,2,3) ~ '"
     "k' %}{{ y|upper }}",
     "<1|z|True>123<1|4|False>123<1|2|FALSE>123K"},
    {"{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for messa"
     "ge in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.m"
     "ulti_step_tool and message.role == \"user\" and message.content is string and not(message.content.st"
     "artswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        {%- set ns"
     ".multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- e"
     "ndfor %}\n{%- for message in messages %}\n    {%- if message.content is string %}\n        {%- set c"
     "ontent = message.content %}\n    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n   "
     " {%- if message.role == \"assistant\" %}\n        {%- set reasoning_content = '' %}\n        {%- if "
     "'</think>' in content %}\n            {%- set reasoning_content = content.split('</think>')[0].rstri"
     "p('\\n').split('<think>')[-1].lstrip('\\n') %}\n            {%- set content = content.split('</think"
     ">')[-1].lstrip('\\n') %}\n        {%- endif %}\n        {%- if loop.last or (not loop.last and reaso"
     "ning_content) %}\n            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_conten"
     "t.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n        {%- endif %}\n    {%- else "
     "%}\n        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n    {%- e"
     "ndif %}\n{%- endfor %}\n{{ ns.last_query_index }}\n{%- if add_generation_prompt %}\n    {{- '<|im_st"
     "art|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n      "
     "  {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
     "<|im_start|>system\nBe brief.  <|im_end|>\n<|im_start|>user\n Hi \342\230\203 \n<|im_end|>\n<|im_sta"
     "rt|>user\nc<|im_end|>\n3<|im_start|>assistant\n"},
};
