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
	for (int i = 0; i < MODEL_CLASS_COUNT; i++)
		if ((any_case ? strcasecmp : strcmp)(name, model_classes[i].name) == 0)
			return i;
	return -1;
}

int model_field_find(int class_id, const char *name)
{
	const struct model_class *c = &model_classes[class_id];

	for (unsigned i = 0; i < c->n_fields; i++)
		if (strcmp(name, c->fields[i].name) == 0 || strcmp(name, c->fields[i].column) == 0)
			return (int)i;
	return -1;
}

const struct err_code *model_error_find(const char *name)
{
	for (unsigned i = 0; model_errors[i] != NULL; i++)
		if (strcmp(name, model_errors[i]->name) == 0)
			return model_errors[i];
	return NULL;
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
