const struct model_message *model_message_find(const char *name)
{
	unsigned lo = 0, hi = model_n_messages;
	char dotted[128];
	const char *underscore = strchr(name, '_');

	if (strchr(name, '.') == NULL && underscore != NULL && strlen(name) < sizeof dotted) {
		/* VM_start: the first underscore that follows a class name */
		for (; underscore != NULL; underscore = strchr(underscore + 1, '_')) {
			const struct model_message *m;

			strcpy(dotted, name);
			dotted[underscore - name] = '.';
			m = model_message_find(dotted);
			if (m != NULL)
				return m;
		}
		return NULL;
	}
	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		int r = strcmp(name, model_messages[mid].name);

		if (r == 0)
			return &model_messages[mid];
		if (r < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

int model_class_find(const char *name, bool any_case)
{
	int lo = 0, hi = MODEL_CLASS_COUNT;

	/* public classes and internal tables are each sorted by name without case; "_" begins the internal ones */
	while (lo < hi) {
		int mid = lo + (hi - lo) / 2, r = strcasecmp(name, model_classes[mid].name);

		if (*name != '_' && *model_classes[mid].name == '_')
			r = -1;
		else if (*name == '_' && *model_classes[mid].name != '_')
			r = 1;
		if (r == 0)
			return any_case || strcmp(name, model_classes[mid].name) == 0 ? mid : -1;
		if (r < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return -1;
}

int model_field_find(int class_id, const char *name)
{
	const struct model_class *c = &model_classes[class_id];
	unsigned lo = 0, hi = c->n_spellings;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		int r = strcmp(name, c->spellings[mid].text);

		if (r == 0)
			return (int)c->spellings[mid].field;
		if (r < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return -1;
}

const struct err_code *model_error_find(const char *name)
{
	for (unsigned i = 0; model_errors[i] != NULL; i++)
		if (strcmp(name, model_errors[i]->name) == 0)
			return model_errors[i];
	return NULL;
}

const struct model_permission *model_permission_find(const char *name)
{
	unsigned lo = 0, hi = model_n_permissions;

	while (lo < hi && model_permissions[lo].is_role)
		lo++;
	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		int r = strcmp(name, model_permissions[mid].name);

		if (r == 0)
			return &model_permissions[mid];
		if (r < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

bool model_role_permits(enum model_role role, enum model_role needed, bool cert)
{
	return needed != MODEL_ROLE_ROOT && role != MODEL_ROLE_ROOT &&
	       (role <= needed || (cert && role == MODEL_ROLE_CLIENT_CERT));
}

int model_enum_index(int enum_id, const char *text)
{
	const char *const *values = model_enums[enum_id].values;

	for (int i = 0; values[i] != NULL; i++)
		if (strcasecmp(text, values[i]) == 0)
			return i;
	return -1;
}

const char *model_enum_value(int enum_id, const char *text)
{
	int i = model_enum_index(enum_id, text);

	return i < 0 ? NULL : model_enums[enum_id].values[i];
}

unsigned model_stored(int class_id, unsigned schema)
{
	const struct model_class *c = &model_classes[class_id];
	unsigned n = c->n_stored;

	while (n > 0 && c->fields[n - 1].schema > schema)
		n--;
	return n;
}

bool model_value_known(const struct model_type *type, const struct val *v, unsigned schema)
{
	bool known = true;
	int i;

	switch (type->kind) {
	case MODEL_ENUM:
		i = v->kind == VAL_STRING ? model_enum_index(type->enum_id, v->s) : -1;
		return i < 0 || model_enums[type->enum_id].schemas[i] <= schema;
	case MODEL_SET:
		for (uint32_t k = 0; v->kind == VAL_SET && k < v->n && known; k++)
			known = model_value_known(type->item, &v->items[k], schema);
		return known;
	case MODEL_MAP:
		for (uint32_t k = 0; v->kind == VAL_MAP && k < v->n && known; k++)
			known = model_value_known(type->item, &v->pairs[k].value, schema);
		return known;
	default:
		return true;
	}
}
